"""`einops.layers.facula`: Rearrange, Reduce and EinMix as modules."""

from __future__ import annotations

from typing import Any

from einops.layers import RearrangeMixin, ReduceMixin
from einops.layers._einmix import _EinmixMixin

import facula
from facula import nn

__all__ = ["EinMix", "Rearrange", "Reduce"]


class Rearrange(RearrangeMixin, nn.Module):
    """`einops.rearrange` with a fixed pattern: `Rearrange('b c h w -> b (c h w)')`."""

    def forward(self, input: facula.Tensor) -> facula.Tensor:
        return self._apply_recipe(input)


class Reduce(ReduceMixin, nn.Module):
    """`einops.reduce` with a fixed pattern: `Reduce('b c h w -> b c', 'mean')`."""

    def forward(self, input: facula.Tensor) -> facula.Tensor:
        return self._apply_recipe(input)


class EinMix(_EinmixMixin, nn.Module):
    """A product with a weight, named by its axes: `EinMix('b c -> b d', 'c d', c=3, d=5)`.

    `weight` and, with `bias_shape`, `bias` are parameters, uniform in the bounds that einops
    derives from the pattern.
    """

    def _create_parameters(self, weight_shape: list[int], weight_bound: float,
                           bias_shape: list[int] | None, bias_bound: float) -> None:
        self.weight = nn.Parameter(facula.empty(weight_shape).uniform_(-weight_bound,
                                                                       weight_bound))
        self.bias = None if bias_shape is None else nn.Parameter(
            facula.empty(bias_shape).uniform_(-bias_bound, bias_bound))

    def _create_rearrange_layers(self, pre_reshape_pattern: str | None,
                                 pre_reshape_lengths: dict[str, Any] | None,
                                 post_reshape_pattern: str | None,
                                 post_reshape_lengths: dict[str, Any] | None) -> None:
        def layer(pattern: str | None, lengths: dict[str, Any] | None) -> Rearrange | None:
            return None if pattern is None else Rearrange(pattern, **(lengths or {}))

        self.pre_rearrange = layer(pre_reshape_pattern, pre_reshape_lengths)
        self.post_rearrange = layer(post_reshape_pattern, post_reshape_lengths)

    def forward(self, input: facula.Tensor) -> facula.Tensor:
        x = input if self.pre_rearrange is None else self.pre_rearrange(input)
        x = facula.einsum(self.einsum_pattern, x, self.weight)
        if self.bias is not None:
            x = x + self.bias
        return x if self.post_rearrange is None else self.post_rearrange(x)
