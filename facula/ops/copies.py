"""Views as copies: `*_copy`, the `unsafe_` splits, tensors resized and summed back to a shape.

PyTorch's `*_copy` operations give what the view of that name shows, in memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from facula.errors import GradientError
from facula.ops import parts, views
from facula.ops.define import attach, op
from facula.ops.given import into
from facula.ops.layout import fill_size, int_args, row_major, strides_of, view_of
from facula.ops.reductions import _sum_type
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["sum_to_size", "resize_", "resize_as_", "narrow_copy",
           "fill_diagonal_"]

_FAMILY = "views"


# ---------------------------------------------------------------- copies of views

def _copy_of(name: str, view: Callable[..., Any]) -> Callable[..., Any]:
    def copy(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        shown = view(*args, **kwargs)
        value = tuple([prim("alias", t) for t in shown]) if isinstance(shown, (tuple, list)) \
            else prim("alias", shown)
        return into(out, value)

    copy.__name__ = copy.__qualname__ = f"{name}_copy"
    copy.__doc__ = f"What `{name}` shows, as a copy in memory of its own."
    return copy


def _alias(input: Tensor) -> Tensor:
    """A view of everything."""
    return view_of(input, "reshape", (), input._node.spec.shape,
                   input._strides or row_major(input._node.spec.shape), input._offset)


def _slice(input: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
           step: int = 1) -> Tensor:
    """input[start:end:step] along `dim`."""
    axis = views.wrap_dim(dim, input.ndim)
    if step <= 0:
        raise RuntimeError("slice step must be positive")
    a, b, _ = slice(start, end, step).indices(input.shape[axis])
    return parts.slice_dim(input, axis, a, max(a, b), step)


_M = Any
_SAMPLES: dict[str, Callable[[_M], list[Any]]] = {
    "expand": lambda make: [((make(3, 1), (3, 4)), {})],
    "diagonal": lambda make: [((make(3, 4),), {}), ((make(3, 4), 1), {})],
    "permute": lambda make: [((make(2, 3, 4), (2, 0, 1)), {})],
    "transpose": lambda make: [((make(2, 3), 0, 1), {})],
    "t": lambda make: [((make(2, 3),), {})],
    "select": lambda make: [((make(2, 3), 1, -1), {})],
    "squeeze": lambda make: [((make(1, 3, 1),), {}), ((make(1, 3, 1), 0), {})],
    "unsqueeze": lambda make: [((make(2, 3), 1), {})],
    "unfold": lambda make: [((make(7), 0, 3, 2), {})],
    "view": lambda make: [((make(2, 6), (3, 4)), {})],
    "as_strided": lambda make: [((make(12), (3, 2), (4, 1), 1), {})],
    "unbind": lambda make: [((make(2, 3), 1), {})],
    "split": lambda make: [((make(5, 2), 2), {})],
    "split_with_sizes": lambda make: [((make(5, 2), (2, 3)), {})],
    "slice": lambda make: [((make(5, 2), 0, 1, 5, 2), {})],
}

for _name, _view in (("alias", _alias), ("as_strided", views.as_strided),
                     ("detach", Tensor.detach), ("diagonal", parts.diagonal),
                     ("expand", views.expand), ("permute", views.permute),
                     ("select", parts.select), ("slice", _slice), ("split", parts.split),
                     ("split_with_sizes", parts.split_with_sizes), ("squeeze", views.squeeze),
                     ("t", views.t), ("transpose", views.transpose), ("unbind", parts.unbind),
                     ("unfold", parts.unfold), ("unsqueeze", views.unsqueeze),
                     ("view", views.view), ("view_as_real", parts.view_as_real),
                     ("view_as_complex", parts.view_as_complex)):
    public(_copy_of(_name, _view), f"{_name}_copy", _FAMILY, method=False,
           samples=_SAMPLES.get(_name), differentiable=_name != "detach")

def _narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    if dim >= max(input.ndim, 1):                        # below is an IndexError, as PyTorch's
        raise RuntimeError(f"narrow_copy: dimension {dim} is out of range for a tensor of "
                           f"{input.ndim} dimensions")
    return parts.narrow(input, dim, start, length)


narrow_copy = public(_copy_of("narrow", _narrow), "narrow_copy", _FAMILY,
                     samples=lambda make: [((make(5, 2), 0, 1, 3), {})])


# ---------------------------------------------------------------- parts that are not views

def _parts_of(name: str, split: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    def unsafe(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return tuple([prim("alias", t) for t in split(input, *args, **kwargs)])

    unsafe.__name__ = unsafe.__qualname__ = f"unsafe_{name}"
    unsafe.__doc__ = f"As `{name}`; the parts are tensors of their own and may be overwritten."
    return unsafe


for _name, _split, _sample in (
        ("chunk", parts.chunk, lambda make: [((make(5, 2), 2), {})]),
        ("split", parts.split, lambda make: [((make(5, 2), 2), {})]),
        ("split_with_sizes", parts.split_with_sizes, lambda make: [((make(5, 2), (2, 3)), {})])):
    public(_parts_of(_name, _split), f"unsafe_{_name}", _FAMILY, samples=_sample)


# ---------------------------------------------------------------- shapes

@op(method=True, samples=lambda make: [((make(2, 3, 4), (3, 1)), {}), ((make(3), ()), {})])
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The sum over the dimensions in which `size` broadcasts to this shape; the shape is `size`."""
    want = int_args(size)
    have = self._node.spec.shape
    lead = len(have) - len(want)
    if lead < 0 or any(w != h and w != 1 for w, h in zip(want, have[lead:])):
        raise RuntimeError(f"size {{{list(want)}}} is not expandable to size {{{list(have)}}}.")
    axes = tuple(k for k in range(len(have)) if k < lead or (want[k - lead] == 1 != have[k]))
    if not axes:
        return prim("alias", self if have else _sum_type(self, None))
    return prim("reshape", prim("sum", _sum_type(self, None), attrs=(axes,)), shape=want)


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Give this tensor another shape, keeping the elements that fit in row-major order.

    What is new is zero.  A tensor that grows takes memory of its own; others that shared the old
    memory keep that.  RuntimeError for tensors that require gradients.
    """
    if self.requires_grad:
        raise GradientError("cannot resize variables that require grad")
    shape = fill_size(int_args(sizes), -1) if -1 in int_args(sizes) else int_args(sizes)
    if any(n < 0 for n in shape):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(shape)}")
    self._fresh()
    if shape == self._node.spec.shape:
        return self
    count, have = prod(shape), self.numel()
    flat = prim("reshape", self, shape=(have,))
    if count <= have:
        flat = prim("slice", flat, attrs=((0,), (1,)), shape=(count,))
    else:
        flat = prim("pad", flat, attrs=((0,), (count - have,), 0))
    made = prim("reshape", flat, shape=shape)
    self._node, self._storage, self._version = made._node, None, self._version + 1
    self._path, self._strides, self._offset, self._base = (), None, 0, None
    return self


def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """`resize_` to the shape of another tensor."""
    return resize_(self, the_template.shape)


attach("resize_", resize_)
public(resize_as_, "resize_as_", _FAMILY, differentiable=False)


def _as_strided_(self: Tensor, size: Any, stride: Any, storage_offset: int | None = None
                 ) -> Tensor:
    """`as_strided`, in place."""
    return views.as_strided(self, size, stride, storage_offset)


views._retarget("as_strided_", _as_strided_)


# ---------------------------------------------------------------- diagonals in place

def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Overwrite the main diagonal (all indices equal) with a number; returns this tensor.

    More than two dimensions must have one size.  With `wrap` the diagonal of a matrix that is
    taller than wide starts again below.
    """
    if self.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if self.ndim > 2 and len(set(self.shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    shape = self.shape
    step = shape[1] + 1 if wrap and self.ndim == 2 else max(shape[0], 1)
    for start in range(0, shape[0], step):
        part = parts.slice_dim(self, 0, start, shape[0]) if start else self
        strides = strides_of(part)
        views.as_strided(part, (min(part.shape),), (sum(strides),),
                         part._offset).fill_(fill_value)             # type: ignore[attr-defined]
    return self


attach("fill_diagonal_", fill_diagonal_)
