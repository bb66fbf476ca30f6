"""From loops and contractions to LLVM text: the writer, elements, micro-kernels and targets.

Each folder says in its own docstring what is in it; later ones build on earlier ones.

- here, the ground of all: `llvm` writes text, `kernel` says what a kernel is, `forms` makes one
  text of those for several sizes; `target` is all that is known of the processor
- `elements/`: loops over elements, and the code of one of them
- `products/`: products of matrices on register tiles, with what follows in their tiles
- `convolutions/`: the same for convolutions and their gradients, whatever their operands lie in
- `attention/`: products whose scores stay in a core's cache
- `recurrence`: a whole loop over time in one kernel
"""
