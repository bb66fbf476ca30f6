"""Images sampled at any places: grid_sample, affine_grid.

Jaderberg et al., "Spatial transformer networks" (2015).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

from facula.dtype import int64
from facula.errors import DTypeError
from facula.nn.functional.common import number, shape_of
from facula.nn.functional.upsample import cubic_weights
from facula.ops.define import autocast_to, cast_first, op
from facula.ops.promote import cast, expand_to
from facula.ops.reductions import constant
from facula.ops.shape import cut
from facula.tensor import Tensor, prim

__all__ = ["grid_sample", "affine_grid"]

_MODES = ("bilinear", "nearest", "bicubic")
_PADDING = ("zeros", "border", "reflection")


# ---------------------------------------------------------------- places

def _unnormalised(at: Tensor, n: int, align: bool) -> Tensor:
    """Places of -1 .. 1 as places among n elements."""
    one = number(at, 1.0)
    if align:
        return prim("mul", prim("add", at, one), number(at, (n - 1) / 2))
    wide = prim("mul", prim("add", at, one), number(at, float(n)))
    return prim("mul", prim("sub", wide, one), number(at, 0.5))


def _clipped(at: Tensor, n: int) -> Tensor:
    """Within 0 .. n-1; no gradient at or beyond the ends."""
    low, high = number(at, 0.0), number(at, float(n - 1))
    at = prim("where", prim("gt", at, low), at, low)
    return prim("where", prim("lt", at, high), at, high)


def _reflected(at: Tensor, n: int, align: bool) -> Tensor:
    """Mirrored at the ends: at the centres of the outer elements, or at their outer edges."""
    low, span = (0.0, float(n - 1)) if align else (-0.5, float(n))
    if span == 0:
        return number(at, 0.0)
    away = prim("abs", prim("sub", at, number(at, low)))
    turns = prim("floor", prim("div", constant(away), number(at, span)))
    rest = prim("sub", away, prim("mul", turns, number(at, span)))
    odd = prim("ne", prim("remainder", turns, number(at, 2.0)), number(at, 0.0))
    back = prim("where", odd, prim("sub", number(at, span), rest), rest)
    return prim("add", back, number(at, low))


def _kept(at: Tensor, n: int, padding: str, align: bool) -> Tensor:
    if padding == "zeros":
        return at
    return _clipped(_reflected(at, n, align) if padding == "reflection" else at, n)


# ---------------------------------------------------------------- values at places

def _values(flat: Tensor, index: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """flat [N, C, elements] at whole places, one tensor [N, P] a dimension; 0 outside."""
    inside = None
    place = None
    for at, n in zip(index, sizes):
        whole = cast(at, int64)
        low, high = number(whole, 0), number(whole, n - 1)
        ok = prim("logical_and", prim("ge", whole, low), prim("le", whole, high))
        inside = ok if inside is None else prim("logical_and", inside, ok)
        safe = prim("minimum", prim("maximum", whole, low), high)
        place = safe if place is None else prim("add", prim("mul", place, number(place, n)), safe)
    assert inside is not None and place is not None
    n, c, _ = shape_of(flat)
    p = shape_of(place)[1]

    def wide(t: Tensor) -> Tensor:
        return expand_to(prim("reshape", t, shape=(n, 1, p)), (n, c, p))

    found = prim("gather", flat, wide(place), attrs=(2,))
    return prim("where", wide(inside), found, number(found, 0.0))


def _weighted(total: Tensor | None, values: Tensor, weight: Tensor) -> Tensor:
    n, c, p = shape_of(values)
    term = prim("mul", values, expand_to(prim("reshape", weight, shape=(n, 1, p)), (n, c, p)))
    return term if total is None else prim("add", total, term)


def _linear(flat: Tensor, places: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """The corners of the cell around a place, weighted by how near they are."""
    lows = [prim("floor", constant(p)) for p in places]
    shares = [prim("sub", p, low) for p, low in zip(places, lows)]
    total = None
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        weight = None
        index = []
        for up, low, share in zip(corner, lows, shares):
            one = number(low, 1.0)
            index.append(prim("add", low, one) if up else low)
            w = share if up else prim("sub", one, share)
            weight = w if weight is None else prim("mul", weight, w)
        assert weight is not None
        total = _weighted(total, _values(flat, index, sizes), weight)
    assert total is not None
    return total


def _cubic(flat: Tensor, places: Sequence[Tensor], sizes: Sequence[int], padding: str,
           align: bool) -> Tensor:
    lows = [prim("floor", constant(p)) for p in places]
    weights = [cubic_weights(prim("sub", p, low)) for p, low in zip(places, lows)]
    total = None
    for i, j in itertools.product(range(4), repeat=2):
        index = [_kept(prim("add", low, number(low, float(k - 1))), n, padding, align)
                 for low, k, n in zip(lows, (i, j), sizes)]
        total = _weighted(total, _values(flat, index, sizes),
                          prim("mul", weights[0][i], weights[1][j]))
    assert total is not None
    return total


@op(name="grid_sample", samples=lambda make: [
    ((make(2, 3, 4, 5), make(2, 2, 3, 2, low=-0.9, high=0.9), "bilinear", "zeros", False), {}),
    ((make(2, 3, 4, 5), make(2, 2, 3, 2, low=-0.9, high=0.9), "bicubic", "border", True), {}),
    ((make(1, 2, 3, 4, 5), make(1, 2, 1, 2, 3, low=-0.9, high=0.9), "bilinear", "reflection",
      False), {})])
@autocast_to("full")
def _sampled(input: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    shape, out = shape_of(input), shape_of(grid)
    sizes = shape[2:]
    count = len(sizes)
    n, p = shape[0], prod(out[1:-1])
    flat = prim("reshape", input, shape=(n, shape[1], prod(sizes)))
    # A grid names the last dimension first.
    places = [prim("reshape", cut(grid, grid.ndim - 1, count - 1 - k, count - k), shape=(n, p))
              for k in range(count)]
    places = [_unnormalised(at, m, align) for at, m in zip(places, sizes)]
    if mode == "bicubic":
        value = _cubic(flat, places, sizes, padding, align)
    else:
        places = [_kept(at, m, padding, align) for at, m in zip(places, sizes)]
        if mode == "nearest":
            value = _values(flat, [prim("round", constant(at)) for at in places], sizes)
        else:
            value = _linear(flat, places, sizes)
    return prim("reshape", value, shape=(n, shape[1], *out[1:-1]))


@cast_first
@autocast_to("full")
def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """`input` [N, C, H, W] at the places `grid` [N, Ho, Wo, 2] -> [N, C, Ho, Wo]; or in 3-D.

    Places are (x, y) with -1 and 1 at the ends of the image: the centres of its outer elements
    with `align_corners`, else their outer edges.  mode is 'bilinear', 'nearest' or, in 2-D,
    'bicubic'; beyond the ends there are 'zeros', the 'border', or a 'reflection'.
    """
    if mode not in _MODES:
        raise ValueError("nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' "
                         f"or 'bicubic', but got: '{mode}'")
    if padding_mode not in _PADDING:
        raise ValueError("nn.functional.grid_sample(): expected padding_mode to be 'zeros', "
                         f"'border', or 'reflection', but got: '{padding_mode}'")
    return _checked(input, grid, mode, padding_mode, bool(align_corners))


def _checked(input: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    if input.dtype is not grid.dtype or input.dtype.kind != "f":
        raise DTypeError(f"grid_sampler(): expected input and grid to have the same floating "
                         f"dtype, but got {input.dtype!r} and {grid.dtype!r}")
    if input.ndim not in (4, 5) or grid.ndim != input.ndim:
        raise RuntimeError("grid_sampler(): expected 4D or 5D input and grid with same number of "
                           f"dimensions, but got input with sizes {list(input.shape)} and grid "
                           f"with sizes {list(grid.shape)}")
    if input.shape[0] != grid.shape[0]:
        raise RuntimeError("grid_sampler(): expected grid and input to have same batch size, but "
                           f"got input with sizes {list(input.shape)} and grid with sizes "
                           f"{list(grid.shape)}")
    if grid.shape[-1] != input.ndim - 2:
        raise RuntimeError(f"grid_sampler(): expected grid to have size {input.ndim - 2} in last "
                           f"dimension, but got grid with sizes {list(grid.shape)}")
    if 0 in shape_of(input)[2:]:
        raise RuntimeError("grid_sampler(): expected input to have non-empty spatial dimensions, "
                           f"but input has sizes {list(input.shape)}")
    if mode == "bicubic" and input.ndim == 5:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    result: Tensor = _sampled(input, grid, mode, padding, align)
    return result


def grid_sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int,
                 align_corners: bool) -> Tensor:
    """`grid_sample` with its modes as numbers, in the order in which that names them."""
    return _checked(input, grid, _MODES[interpolation_mode], _PADDING[padding_mode],
                    align_corners)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid for `grid_sample` that applies affine maps: theta [N, 2, 3] and the output's
    size (N, C, H, W) -> [N, H, W, 2]; theta [N, 3, 4] in 3-D."""
    if theta.dtype.kind != "f":
        raise ValueError("Expected theta to have floating point type, but got "
                         f"{theta.dtype!r}")
    count = len(size) - 2
    if count not in (2, 3):
        raise NotImplementedError("affine_grid only supports 4D and 5D sizes, for 2D and 3D affine "
                                  f"transforms, respectively. Got size {list(size)}")
    if theta.ndim != 3 or shape_of(theta)[1:] != (count, count + 1):
        raise ValueError(f"Expected a batch of {count}D affine matrices of shape "
                         f"Nx{count}x{count + 1} for size {list(size)}. Got {list(theta.shape)}.")
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {list(size)}")
    result: Tensor = _affine(theta, tuple(int(v) for v in size), bool(align_corners))
    return result


@op(name="affine_grid", samples=lambda make: [((make(2, 2, 3), (2, 1, 3, 4), False), {}),
                                              ((make(1, 3, 4), (1, 1, 2, 3, 2), True), {})])
@autocast_to("lower")
def _affine(theta: Tensor, size: tuple[int, ...], align: bool) -> Tensor:
    sizes = size[2:]
    count, p = len(sizes), prod(sizes)
    columns = []
    for axis in reversed(range(count)):
        n = sizes[axis]
        at = cast(prim("iota", shape=(n,), dtype=int64), theta.dtype)
        if align:
            step = 2.0 / (n - 1) if n > 1 else 0.0
            at = prim("add", prim("mul", at, number(at, step)), number(at, -1.0 if n > 1 else 0.0))
        else:
            at = prim("mul", prim("add", at, number(at, 0.5)), number(at, 2.0 / n))
            at = prim("sub", at, number(at, 1.0))
        line = prim("reshape", at, shape=tuple(n if k == axis else 1 for k in range(count)))
        columns.append(prim("reshape", expand_to(line, sizes), shape=(p, 1)))
    columns.append(number(columns[0], 1.0))
    base = prim("cat", *columns, attrs=(1,))
    n = size[0]
    wide = expand_to(base, (n, p, count + 1))
    out = prim("matmul", wide, prim("permute", theta, attrs=((0, 2, 1),)))
    return prim("reshape", out, shape=(n, *sizes, count))


grid_sampler_2d = grid_sampler_3d = grid_sampler
affine_grid_generator = affine_grid
