"""Products of matrices: C[b, m, n] = sum over k of A[b, m, k] * B[b, k, n].

`contraction` says what one is, and `choice` picks who writes its kernels:

- `brgemm`: tiles of the `microkernel` over operands that `pack` has packed; `pairs` does the same
  with bfloat16 in pairs, and `amx` with tile registers
- `gemv`: one row or very few
- `scalars`: numbers that none of these multiply

`tiles` is what they share.  `epilogue` goes around all of them: it is what follows a product in a
schedule, written into the product's own tiles, and where a schedule asks for the kernels of both.
"""
