"""Convolutions on blocks of channels: a vector is as many channels of one place.

`convolution` says what one is, how its operands lie and where minimal filtering suits it, and
`choice` picks who writes its kernel: `forward` by plain sums, `squares` by minimal filtering, and
`adjoint`, which is `squares` transposed, for gradients by the input; `filtering` is what the two
share.  `weight` has gradients by the weight, `transforms` the additions of minimal filtering that
all of them call.
"""
