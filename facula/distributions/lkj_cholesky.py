"""Cholesky factors of random correlation matrices."""

from __future__ import annotations

import math
from typing import Any

from facula.autograd import no_grad
from facula.distributions import constraints
from facula.distributions.beta import Beta
from facula.distributions.distribution import Distribution, family
from facula.distributions.utils import broadcast_all, normal_like
from facula.info import finfo
from facula.nn.functional import pad
from facula.ops.patterns import arange
from facula.ops.special_functions import mvlgamma
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["LKJCholesky"]


@family({"dim": 3, "concentration": 1.5}, {"dim": 2, "concentration": [0.5, 1.0, 4.0]})
class LKJCholesky(Distribution):
    """Cholesky factors L [..., dim, dim] of correlation matrices whose density is in proportion
    to det(L L')**(concentration - 1), uniform for 1 (Lewandowski, Kurowicka and Joe, "Generating
    random correlation matrices based on vines and extended onion method", 2009)."""

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None):
        if dim < 2:
            raise ValueError(f"Expected dim to be an integer greater than or equal to 2. Found "
                             f"dim={dim}.")
        self.dim = dim
        self.concentration, = broadcast_all(concentration)
        super().__init__(self.concentration.shape, (dim, dim), validate_args=validate_args)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        new.dim = self.dim

    def sample(self, sample_shape: Any = ()) -> Tensor:
        # The onion: of row i the first i numbers are a vector in the ball of i dimensions, in
        # any direction; its squared length is beta, and what is left to 1 is the diagonal.
        with no_grad():
            shape = self._extended_shape(sample_shape)
            row = arange(1, self.dim, dtype=self.concentration.dtype)
            eta = self.concentration.unsqueeze(-1)
            beta = Beta((0.5 * row).expand(*eta.shape[:-1], self.dim - 1),
                        eta + 0.5 * (self.dim - 1 - row), validate_args=False)
            length = pad(beta.sample(sample_shape), [1, 0])  # row 0 is (1, 0, 0, ...)
            direction = normal_like(self.concentration, shape).tril(-1)
            tiny = finfo(direction.dtype).tiny
            norm = direction.square().sum(-1, keepdim=True).clamp(min=tiny).sqrt()
            lower = length.sqrt().unsqueeze(-1) * direction / norm
            rest = (1 - lower.square().sum(-1)).clamp(min=tiny).sqrt()
            return lower + rest.diag_embed()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        diagonal = value.diagonal(dim1=-2, dim2=-1)[..., 1:]
        row = arange(2, self.dim + 1, dtype=self.concentration.dtype)
        power = 2 * (self.concentration - 1).unsqueeze(-1) + self.dim - row
        alpha = self.concentration + 0.5 * (self.dim - 1)
        norm = 0.5 * (self.dim - 1) * math.log(math.pi) \
            + mvlgamma(alpha - 0.5, self.dim - 1) - (self.dim - 1) * alpha.lgamma()
        return (power * diagonal.log()).sum(-1) - norm
