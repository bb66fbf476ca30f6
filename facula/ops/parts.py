"""Views of parts: slices, diagonals, windows, splits, and the parts of complex numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.errors import DTypeError
from facula.ops.keywords import also_named, numpy_names
from facula.ops.layout import as_int, int_args, row_major, strides_of, view_of
from facula.ops.reductions import wrap_dim
from facula.ops.surface import public
from facula.ops.views import _register
from facula.tensor import Tensor

__all__ = ["slice_view", "slice_dim", "select", "narrow", "unbind", "diagonal", "unfold",
           "split", "split_with_sizes", "chunk", "tensor_split", "hsplit", "vsplit", "dsplit",
           "view_as_real", "view_as_complex", "real", "imag"]

_FAMILY = "views"


# ---------------------------------------------------------------- parts

def slice_view(x: Tensor, starts: Sequence[int], steps: Sequence[int],
               shape: Sequence[int]) -> Tensor:
    """The view with elements starts[k] + i * steps[k] along each dimension k."""
    strides = strides_of(x)
    offset = x._offset
    for a, s in zip(starts, strides):
        offset += a * s
    return view_of(x, "slice", (tuple(starts), tuple(steps)), shape,
                   [a * b for a, b in zip(strides, steps)], offset)


def slice_dim(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """The view of x[start:stop:step] along one dimension; 0 <= start <= stop."""
    x._fresh()
    shape = x._node.spec.shape
    n = len(shape)
    starts, steps = [0] * n, [1] * n
    starts[axis], steps[axis] = start, step
    size = max(-(-(stop - start) // step), 0)
    return slice_view(x, starts, steps, (*shape[:axis], size, *shape[axis + 1:]))


def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """The view at position `index` of dimension `dim`, which goes away."""
    input._fresh()
    shape = input._node.spec.shape
    if not shape:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    axis = wrap_dim(dim, len(shape))
    i = as_int(index)
    n = shape[axis]
    if not -n <= i < n:
        raise IndexError(f"select(): index {i} out of range for tensor of size {list(shape)} at "
                         f"dimension {axis}")
    one = slice_dim(input, axis, i % n, i % n + 1)
    strides = strides_of(input)
    return view_of(one, "reshape", (), (*shape[:axis], *shape[axis + 1:]),
                   (*strides[:axis], *strides[axis + 1:]),
                   input._offset + i % n * strides[axis])


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """The view of `length` elements from `start` along `dim`."""
    input._fresh()
    shape = input._node.spec.shape
    if not shape:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    axis = wrap_dim(dim, len(shape))
    if isinstance(start, Tensor) and (start.ndim or start.dtype.kind not in "ui"):
        raise RuntimeError("start must be an 0-dim integral Tensor.")
    length, start = as_int(length), as_int(start)
    n = shape[axis]
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -n <= start <= n:
        raise IndexError(f"start out of range (expected to be in range of [{-n}, {n}], but got "
                         f"{start})")
    if start < 0:
        start += n
    if start + length > n:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return slice_dim(input, axis, start, start + length)


@numpy_names
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The views at each position of a dimension."""
    if not input.ndim:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    axis = wrap_dim(dim, input.ndim)
    return tuple([select(input, axis, i) for i in range(input._node.spec.shape[axis])])


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The view of the diagonals over dim1 and dim2, which become the last dimension."""
    input._fresh()
    ndim = input.ndim
    a, b = wrap_dim(dim1, ndim), wrap_dim(dim2, ndim)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    shape, strides = input._node.spec.shape, strides_of(input)
    inner = row_major(shape)
    n = max(min(shape[a], shape[b] - offset) if offset >= 0
            else min(shape[a] + offset, shape[b]), 0)
    first = b if offset >= 0 else a
    skip = abs(offset) if n else 0
    keep = [k for k in range(ndim) if k not in (a, b)]
    return view_of(input, "as_strided",
                   ((*(inner[k] for k in keep), inner[a] + inner[b]), skip * inner[first]),
                   (*(shape[k] for k in keep), n),
                   (*(strides[k] for k in keep), strides[a] + strides[b]),
                   input._offset + skip * strides[first])


def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """The view of all windows of `size` elements, `step` apart, along a dimension.

    The dimension becomes the number of windows; their elements are a new last dimension.
    """
    self._fresh()
    shape, strides = self._node.spec.shape, strides_of(self)
    axis = wrap_dim(dimension, len(shape))
    n = shape[axis] if shape else 1
    if not 0 <= size <= n:
        raise RuntimeError(f"maximum size for tensor at dimension {axis} is {n} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    inner = row_major(shape)
    if not shape:
        return view_of(self, "as_strided", ((1,), 0), (size,), (1,), self._offset)
    count = (n - size) // step + 1
    return view_of(self, "as_strided",
                   ((*inner[:axis], inner[axis] * step, *inner[axis + 1:], inner[axis]), 0),
                   (*shape[:axis], count, *shape[axis + 1:], size),
                   (*strides[:axis], strides[axis] * step, *strides[axis + 1:], strides[axis]),
                   self._offset)


# ---------------------------------------------------------------- several parts

def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0
                     ) -> tuple[Tensor, ...]:
    """Views of these lengths, one after the other along `dim`, which they fill."""
    if not input.ndim:
        raise RuntimeError("split_with_sizes expects at least a 1-dimensional tensor")
    axis = wrap_dim(dim, input.ndim)
    n = input._node.spec.shape[axis]
    sizes = int_args((split_sizes,))
    if any(k < 0 for k in sizes):
        raise RuntimeError("split_with_sizes expects split_sizes have only non-negative entries, "
                           f"but got split_sizes={list(sizes)}")
    if sum(sizes) != n:
        raise RuntimeError("split_with_sizes expects split_sizes to sum exactly to "
                           f"{n} (input tensor's size at dimension {dim}), but got "
                           f"split_sizes={list(sizes)}")
    parts, start = [], 0
    for k in sizes:
        parts.append(slice_dim(input, axis, start, start + k))
        start += k
    return tuple(parts)


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of `split_size` elements along `dim` (the last may be smaller), or of given sizes."""
    if isinstance(split_size_or_sections, (tuple, list)):
        return split_with_sizes(tensor, split_size_or_sections, dim)
    if not tensor.ndim:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    axis = wrap_dim(dim, tensor.ndim)
    n, size = tensor._node.spec.shape[axis], as_int(split_size_or_sections)
    if size < 0:
        raise RuntimeError(f"split expects split_size be non-negative, but got split_size={size}")
    if size == 0:
        if n:
            raise RuntimeError("split_size can only be 0 if dimension size is 0, but got "
                               f"dimension size of {n}")
        return (slice_dim(tensor, axis, 0, 0),)
    return tuple([slice_dim(tensor, axis, a, min(a + size, n))
                  for a in range(0, max(n, 1), size)])


def _split_method(self: Tensor, split_size: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of `split_size` elements along `dim` (the last may be smaller), or of given sizes."""
    return split(self, split_size, dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal size along `dim` (the last may be smaller)."""
    if not input.ndim:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    axis = wrap_dim(dim, input.ndim)
    n = input._node.spec.shape[axis]
    size = -(-n // chunks)
    if size == 0:
        return tuple([slice_dim(input, axis, 0, 0) for _ in range(chunks)])
    return split(input, size, axis)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views cut at given indices along `dim`, or into a number of nearly equal parts."""
    if not input.ndim:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a "
                           "tensor with 0 dims")
    axis = wrap_dim(dim, input.ndim)
    n = input._node.spec.shape[axis]
    cuts: Any = indices_or_sections
    if isinstance(cuts, Tensor):
        if cuts.ndim > 1 or cuts.dtype.kind not in "ui":
            raise RuntimeError("tensor_split expected tensor_indices_or_sections to be a zero- "
                               "or one-dimensional tensor of integers")
        cuts = cuts._peek().tolist()
    if isinstance(cuts, (tuple, list)):
        edges = [0, *int_args((cuts,)), n]
        bounds = []
        for a, b in zip(edges, edges[1:]):
            lo, hi, _ = slice(a, b).indices(n)
            bounds.append((lo, max(lo, hi)))
    else:
        sections = as_int(cuts)
        if sections <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {sections}")
        small, more = divmod(n, sections)
        bounds, at = [], 0
        for k in range(sections):
            step = small + (k < more)
            bounds.append((at, at + step))
            at += step
    return tuple([slice_dim(input, axis, a, b) for a, b in bounds])


def _even(name: str, input: Tensor, what: Any, axis: int) -> tuple[Tensor, ...]:
    if isinstance(what, int):
        n = input._node.spec.shape[axis]
        if what <= 0 or n % what:
            raise RuntimeError(f"{name} attempted to split along dimension {axis}, but the "
                               f"size of the dimension {n} is not divisible by the split_size "
                               f"{what}!")
    return tensor_split(input, what, axis)


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` by columns: along dimension 1, or 0 of a 1-d tensor; parts are equal."""
    if input.ndim < 1:
        raise RuntimeError("hsplit requires a tensor with at least 1 dimension, but got a tensor "
                           "with 0 dimensions!")
    return _even("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` by rows; parts are equal."""
    if input.ndim < 2:
        raise RuntimeError("vsplit requires a tensor with at least 2 dimension, but got a tensor "
                           f"with {input.ndim} dimensions!")
    return _even("vsplit", input, indices_or_sections, 0)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along dimension 2; parts are equal."""
    if input.ndim < 3:
        raise RuntimeError("dsplit requires a tensor with at least 3 dimension, but got a tensor "
                           f"with {input.ndim} dimensions!")
    return _even("dsplit", input, indices_or_sections, 2)


# ---------------------------------------------------------------- complex numbers as pairs

def view_as_real(input: Tensor) -> Tensor:
    """A complex tensor as a view of pairs of real numbers: a new last dimension of size 2."""
    if input.dtype.kind != "c":
        raise DTypeError("view_as_real is only supported for complex tensors")
    input._fresh()
    strides = strides_of(input)
    return view_of(input, "bitcast", (), (*input._node.spec.shape, 2),
                   (*(2 * s for s in strides), 1), 2 * input._offset, input.dtype.to_real())


def view_as_complex(input: Tensor) -> Tensor:
    """Pairs of real numbers (the last dimension, of size 2) as a view of complex numbers."""
    dtype = input.dtype
    if dtype.kind != "f" or dtype.itemsize < 4:
        raise DTypeError("view_as_complex is only supported for float and double tensors, but "
                         f"got a tensor of scalar type: {dtype.name}")
    input._fresh()
    shape, strides = input._node.spec.shape, strides_of(input)
    if not shape:
        raise RuntimeError("Input tensor must have one or more dimensions")
    if shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2")
    if strides[-1] != 1:
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    if any(s % 2 for s in strides[:-1]):
        raise RuntimeError("Tensor must have a stride divisible by 2 for all but last dimension")
    if input._offset % 2:
        raise RuntimeError("Tensor must have a storage_offset divisible by 2")
    return view_of(input, "bitcast", (), shape[:-1], [s // 2 for s in strides[:-1]],
                   input._offset // 2, dtype.to_complex())


def _part(name: str, x: Tensor) -> Tensor:
    x._fresh()
    return view_of(x, name, (), x._node.spec.shape, [2 * s for s in strides_of(x)],
                   2 * x._offset + (name == "imag"), x.dtype.to_real())


def real(input: Tensor) -> Tensor:
    """The real part, a view; a real tensor itself."""
    return _part("real", input) if input.dtype.kind == "c" else input


def imag(input: Tensor) -> Tensor:
    """The imaginary part of a complex tensor, a view."""
    if input.dtype.kind != "c":
        raise DTypeError("imag is not implemented for tensors with non-complex dtypes.")
    return _part("imag", input)


# ---------------------------------------------------------------- registry

_register(select, "select", ((3, 4), (0, 1)), ((3, 4), (-1, -2)))
_register(narrow, "narrow", ((5, 4), (0, 1, 3)), ((5, 4), (1, -2, 2)))
_register(unbind, "unbind", ((3, 4), ()), ((3, 4), (1,)))
_register(diagonal, "diagonal", ((3, 4), ()), ((3, 4), (1,)), ((2, 3, 4), (-1, 0, 2)))
_register(unfold, "unfold", ((7,), (0, 3, 2)), ((3, 5), (1, 2, 1)))
_register(split, "split", ((5, 4), (2,)), ((5, 4), ([1, 4], 0)), ((5, 4), (3, 1)), method=False)
_register(split_with_sizes, "split_with_sizes", ((5, 4), ([2, 3],)))
_register(chunk, "chunk", ((5, 4), (2,)), ((5, 4), (3, 1)))
_CUTS = dict.fromkeys(("indices", "sections"), "indices_or_sections")
hsplit, vsplit, dsplit = (also_named(fn, _CUTS) for fn in (hsplit, vsplit, dsplit))
tensor_split = also_named(tensor_split, {
    **_CUTS, "tensor_indices_or_sections": "indices_or_sections"})
_register(tensor_split, "tensor_split", ((5, 4), (3,)), ((5, 4), ((1, 3), 1)))
_register(hsplit, "hsplit", ((2, 4), (2,)))
_register(vsplit, "vsplit", ((4, 2), (2,)))
_register(dsplit, "dsplit", ((2, 2, 4), ([1],)))
_register(real, "real", ((3,), ()), method=False)
public(imag, "imag", _FAMILY, method=False)
public(view_as_real, "view_as_real", _FAMILY, method=False)
_register(view_as_complex, "view_as_complex", ((3, 2), ()), method=False)

Tensor.split = _split_method                         # type: ignore[attr-defined]
Tensor.real = property(real, doc=real.__doc__)       # type: ignore[attr-defined]
Tensor.imag = property(imag, doc=imag.__doc__)       # type: ignore[attr-defined]
