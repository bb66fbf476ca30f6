"""From loops and contractions to LLVM text: the writer, elements, micro-kernels and targets.

- the ground: `llvm` writes text, `kernel` a function with its operands, `forms` one text for
  several sizes; `target` is all that is known of the processor
- loops over elements: `loops`, `nest`, `stretches` (windows and padding), `lower`, `reductions`,
  `updates`, `bounds`; one element by `expr`, `float_expr`, `complex_expr`, `half` and `mathlib/`
- contractions: `contract` says what one is, `contraction` picks between `brgemm` (tiles of
  `microkernel` over operands that `pack` has packed), `gemv` (a few rows), `pairs` (bfloat16),
  `amx` (the same by tile registers) and `scalars` (numbers that none of these multiply);
  `epilogue` writes what follows into their tiles, `tiles` is what they share
- convolutions: `convolve` says what one is, and picks between `convolve_forward` (with its packed
  weight in `convolve_panels`) and `convolve_weight` (a table of distances in place of a stride,
  with `walks` and `direct`), `convolve_pairs` and `convolve_tiles` (bfloat16) and `lanewise` (small
  groups); `winograd` is in place of the plain sum for 3x3, and `finite` watches that it may be.
  `pointwise` and `pointwise_weight` are kernels of one point, which are products of matrices; on
  blocks of channels there are `blocked`, and `blocked_squares`, `blocked_adjoint` and
  `blocked_weight` with their `transforms`.  `convolution` writes what follows into the tiles of all
  of them
- `attention` with `attend` and `attend_back`; `recurrence`
"""
