"""From loops and contractions to LLVM text: the writer, elements, micro-kernels and targets.

- the ground: `llvm` writes text, `kernel` a function with its operands, `forms` one text for
  several sizes; `target` is all that is known of the processor
- loops over elements: `loops`, `nest`, `stretches` (windows and padding), `lower`, `reductions`,
  `updates`, `bounds`; one element by `expr`, `float_expr`, `complex_expr`, `half` and `mathlib/`
- contractions: `contract` picks between `brgemm` (tiles of `microkernel` over operands that `pack`
  has packed), `gemv` (a few rows), `pairs` (bfloat16) and `amx` (the same by tile registers);
  `epilogue` writes what follows into their tiles
- convolutions: `convolution` picks between `convolve` and `convolve_weight` (a table of distances
  in place of a stride, with `walks` and `direct`), `pointwise` and `pointwise_weight` (kernels of
  one point, which are products of matrices), `convolve_pairs` and `convolve_tiles` (bfloat16),
  `lanewise` (small groups), `winograd` (3x3), and on blocks of channels `blocked`,
  `blocked_squares` and `blocked_weight`
- `attention` with `attend` and `attend_back`; `recurrence`
"""
