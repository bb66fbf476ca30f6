"""Convolutions and their two gradients, on the micro-kernel of all products.

`convolution` says what one is, and `choice` picks who writes its kernels.  `walks` is the geometry
and `direct` the pieces that all kernels are made of; then

- `forward`: the convolution, and its gradient by the input, with the weight packed in `panels`
- `weight`: its gradient by the weight
- `pairs` and `amx`: the same of bfloat16, in pairs and by tile registers
- `lanewise`: of many small groups
- `winograd`: of 3x3 by minimal filtering, in place of the plain sum, as `finite` says that it may
- `pointwise` and `pointwise_weight`: of one point, which are products of matrices

`blocks/` has convolutions on blocks of channels.  `epilogue` goes around all of them, as that of
`products` does: what follows a convolution in a schedule, written into its tiles.
"""
