"""Operations whose result is a view: it shares its memory with what it was made of.

Each is a movement primitive with the strides and the offset that the view then has.  What is
written through a view, or through a view of one, is seen by all that share the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.dtype import DType
from facula.errors import GradientError, ShapeError
from facula.ops.keywords import also_named, numpy_names
from facula.ops.layout import (
    as_int,
    check_tensor,
    fill_size,
    int_args,
    is_packed,
    root_of,
    strides_of,
    view_of,
    view_strides,
)
from facula.ops.reductions import wrap_dim
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["view", "reshape", "flatten", "unflatten", "ravel", "permute", "transpose", "t",
           "adjoint", "movedim", "expand", "expand_as", "broadcast_to", "squeeze", "unsqueeze",
           "as_strided", "permuted"]

_FAMILY = "views"


# ---------------------------------------------------------------- reshaping

def _reshaped(x: Tensor, shape: tuple[int, ...], strides: Sequence[int]) -> Tensor:
    return view_of(x, "reshape", (), shape, strides, x._offset)


def reshape(input: Tensor, *sizes: Any, shape: Any = ()) -> Tensor:
    """The same elements in another shape; one size may be -1.

    A view where strides allow it, else a copy.  ShapeError if the number of elements differs.
    """
    check_tensor("reshape", input)
    input._fresh()
    new = fill_size(int_args(sizes or (shape,)), input.numel())
    old = input._node.spec.shape
    strides = view_strides(old, strides_of(input), new)
    if strides is None:
        return prim("reshape", input, shape=new)
    return _reshaped(input, new, strides)


def _reshape(input: Tensor, shape: Any) -> Tensor:
    """The same elements in another shape; one size may be -1.

    A view where strides allow it, else a copy.  ShapeError if the number of elements differs.
    """
    return reshape(input, shape)


def view(self: Tensor, *sizes: Any, size: Any = (), dtype: DType | None = None) -> Tensor:
    """A view of another shape (one size may be -1), or of the same bytes as another dtype.

    ShapeError where the elements do not lie in memory so that one exists.
    """
    if dtype is not None:
        return _view_dtype(self, dtype)
    if len(sizes) == 1 and isinstance(sizes[0], DType):
        return _view_dtype(self, sizes[0])
    self._fresh()
    new = fill_size(int_args(sizes or (size,)), self.numel())
    strides = view_strides(self._node.spec.shape, strides_of(self), new)
    if strides is None:
        raise ShapeError("view size is not compatible with input tensor's size and stride (at "
                         "least one dimension spans across two contiguous subspaces). Use "
                         ".reshape(...) instead.")
    return _reshaped(self, new, strides)


def _view_dtype(x: Tensor, dtype: DType) -> Tensor:
    """The bytes of `x` read as `dtype`; the last dimension grows or shrinks with the width."""
    own = x.dtype
    shape, strides = x._node.spec.shape, strides_of(x)
    if own.itemsize == dtype.itemsize:
        return view_of(x, "bitcast", (), shape, strides, x._offset, dtype)
    if not shape:
        raise ShapeError(f"self.dim() cannot be 0 to view {own.name} as {dtype.name} (different "
                         "element sizes)")
    if own.itemsize > dtype.itemsize:
        if strides[-1] != 1:
            raise ShapeError(f"self.stride(-1) must be 1 to view {own.name} as {dtype.name} "
                             f"(different element sizes), but got {strides[-1]}")
        k = own.itemsize // dtype.itemsize
        new = (*shape[:-1], shape[-1] * k)
        return view_of(x, "bitcast", (), new, (*(s * k for s in strides[:-1]), 1),
                       x._offset * k, dtype)
    k = dtype.itemsize // own.itemsize
    if shape[-1] % k:
        raise ShapeError(f"self.size(-1) must be divisible by {k} to view {own.name} as "
                         f"{dtype.name} (different element sizes), but got {shape[-1]}")
    if x._offset % k:
        raise ShapeError(f"self.storage_offset() must be divisible by {k} to view {own.name} as "
                         f"{dtype.name} (different element sizes), but got {x._offset}")
    if strides[-1] != 1 or any(s % k for s in strides[:-1]):
        raise ShapeError(f"self.stride(-1) must be 1 and the other strides divisible by {k} to "
                         f"view {own.name} as {dtype.name} (different element sizes)")
    return view_of(x, "bitcast", (), (*shape[:-1], shape[-1] // k),
                   (*(s // k for s in strides[:-1]), 1), x._offset // k, dtype)


def view_as(self: Tensor, other: Tensor) -> Tensor:
    """A view of the shape of `other`."""
    return view(self, other.shape)


def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """`self` in the shape of `other`, a view where strides allow it."""
    return reshape(self, other.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim to end_dim (included) as one; a zero-dim tensor becomes 1-d."""
    shape = input._node.spec.shape
    if not shape:
        wrap_dim(start_dim, 0), wrap_dim(end_dim, 0)
        return reshape(input, (1,))
    a, b = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if a > b:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if a == b:
        return input
    n = 1
    for k in shape[a:b + 1]:
        n *= k
    return reshape(input, (*shape[:a], n, *shape[b + 1:]))


def ravel(input: Tensor) -> Tensor:
    """One dimension with all elements in row-major order."""
    return reshape(input, (input.numel(),))


def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Dimension `dim` cut into several of these sizes; one may be -1."""
    axis = wrap_dim(dim, input.ndim)
    sizes = int_args((sizes,))
    if not sizes:
        raise RuntimeError("unflatten: sizes must be non-empty")
    shape = input._node.spec.shape
    try:
        new = fill_size(sizes, shape[axis])
    except ShapeError:
        raise ShapeError(f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size "
                         f"of dim {axis} ({shape[axis]}) in the input tensor") from None
    return view(input, (*shape[:axis], *new, *shape[axis + 1:]))


# ---------------------------------------------------------------- order of dimensions

def permuted(x: Tensor, order: Sequence[int]) -> Tensor:
    """The view whose dimension k is dimension order[k] of `x`."""
    x._fresh()
    shape, strides = x._node.spec.shape, strides_of(x)
    order = tuple(order)
    return view_of(x, "permute", (order,), tuple([shape[k] for k in order]),
                   [strides[k] for k in order], x._offset)


def permute(input: Tensor, *order: Any, dims: Any = ()) -> Tensor:
    """A view with the dimensions in the order `dims`."""
    given = int_args(order or (dims,))
    ndim = input.ndim
    if len(given) != ndim:
        raise RuntimeError(
            f"permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {ndim} is not "
            f"equal to len(dims) = {len(given)}".replace("(sparse_coo)", ""))
    axes = [wrap_dim(d, ndim) for d in given]
    if len(set(axes)) != ndim:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return permuted(input, axes)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions exchanged."""
    ndim = input.ndim
    a, b = wrap_dim(dim0, ndim), wrap_dim(dim1, ndim)
    order = list(range(ndim))
    if ndim:
        order[a], order[b] = order[b], order[a]
    return permuted(input, order)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; tensors of fewer dimensions as they are."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return permuted(input, range(input.ndim)[::-1])


def adjoint(input: Tensor) -> Tensor:
    """The conjugate transpose of the last two dimensions."""
    if input.ndim < 2:
        raise RuntimeError(f"tensor.adjoint() is only supported on matrices or batches of "
                           f"matrices. Got {input.ndim}-D tensor.")
    swapped = transpose(input, -2, -1)
    return prim("conj", swapped) if input.dtype.kind == "c" else swapped


def _all_reversed(x: Tensor) -> Tensor:
    """The dimensions in reverse order."""
    return permuted(x, range(x.ndim)[::-1])


def _matrix_transposed(x: Tensor) -> Tensor:
    """The last two dimensions exchanged."""
    if x.ndim < 2:
        raise RuntimeError("tensor.mT is only supported on matrices or batches of matrices. Got "
                           f"{x.ndim}-D tensor.")
    return transpose(x, -2, -1)


def _hermitian(x: Tensor) -> Tensor:
    """The conjugate transpose of a matrix."""
    if x.ndim not in (0, 2):
        raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got {x.ndim}-D "
                           "tensor. For batches of matrices, consider using tensor.mH")
    return adjoint(x) if x.ndim else x


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """A view with the dimensions at `source` moved to `destination`; the others keep order."""
    ndim = input.ndim
    src = [wrap_dim(d, ndim) for d in (source if isinstance(source, (tuple, list)) else [source])]
    dst = [wrap_dim(d, ndim) for d in (destination if isinstance(destination, (tuple, list))
                                       else [destination])]
    if len(src) != len(dst):
        raise RuntimeError(f"movedim: Invalid source or destination dims: source ({src} dims) "
                           f"should contain the same number of dims as destination ({dst} dims)")
    if len(set(src)) != len(src):
        raise RuntimeError(f"movedim: repeated dim in `source` ({src})")
    if len(set(dst)) != len(dst):
        raise RuntimeError(f"movedim: repeated dim in `destination` ({dst})")
    if not ndim:
        return permuted(input, ())
    order = [-1] * ndim
    for s, d in zip(src, dst):
        order[d] = s
    rest = iter([k for k in range(ndim) if k not in src])
    return permuted(input, [next(rest) if k < 0 else k for k in order])


# ---------------------------------------------------------------- broadcasting, size 1

def expand(self: Tensor, *sizes: Any, size: Any = ()) -> Tensor:
    """A view in which dimensions of size 1 are repeated without copying; -1 keeps a size."""
    self._fresh()
    want = int_args(sizes or (size,))
    shape, strides = self._node.spec.shape, strides_of(self)
    lead = len(want) - len(shape)
    if lead < 0:
        raise ShapeError(
            f"expand({self.dtype.name}{list(shape)}, size={list(want)}): the number of sizes "
            f"provided ({len(want)}) must be greater or equal to the number of dimensions in the "
            f"tensor ({len(shape)})")
    out, steps = [], []
    for k, n in enumerate(want):
        j = k - lead
        if j < 0:
            if n < 0:
                raise ShapeError(f"The expanded size of the tensor ({n}) isn't allowed in a "
                                 f"leading, non-existing dimension {k}")
            out.append(n)
            steps.append(0)
            continue
        have = shape[j]
        if n == -1 or n == have:
            out.append(have)
            steps.append(strides[j])
        elif have == 1 and n >= 0:
            out.append(n)
            steps.append(0)
        else:
            raise ShapeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({have}) at "
                f"non-singleton dimension {k}.  Target sizes: {list(want)}.  Tensor sizes: "
                f"{list(shape)}")
    # A new dimension of size 1 has the stride that the one after it spans, from the back.
    for k in range(lead - 1, -1, -1):
        if out[k] == 1:
            steps[k] = out[k + 1] * steps[k + 1] if k + 1 < len(out) else 1
    if not shape:
        steps = [0] * len(out)
    wide = self
    if lead:
        ones = (1,) * lead + tuple(shape)
        wide = view_of(self, "reshape", (), ones, (*steps[:lead], *strides), self._offset)
    if wide is not self and tuple(out) == wide._node.spec.shape:
        return wide
    return view_of(wide, "expand", (), out, steps, self._offset)


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """`self` expanded to the shape of `other`."""
    return expand(self, other.shape)


def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """A view of `input` broadcast to a shape."""
    return expand(input, size)


@numpy_names
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """A view without the dimensions of size 1, or without those of them that `dim` names."""
    input._fresh()
    shape, strides = input._node.spec.shape, strides_of(input)
    if dim is None:
        drop = {k for k, n in enumerate(shape) if n == 1}
    else:
        dims = dim if isinstance(dim, (tuple, list)) else (dim,)
        axes = [wrap_dim(d, len(shape)) for d in dims]
        if len(set(axes)) != len(axes):
            twice = next(a for a in axes if axes.count(a) > 1)
            raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
        drop = {k for k in axes if shape and shape[k] == 1}
    keep = [k for k in range(len(shape)) if k not in drop]
    return _reshaped(input, tuple([shape[k] for k in keep]), [strides[k] for k in keep])


@numpy_names
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A view with a new dimension of size 1 at `dim`."""
    input._fresh()
    shape, strides = input._node.spec.shape, strides_of(input)
    k = wrap_dim(dim, len(shape) + 1)
    step = shape[k] * strides[k] if k < len(shape) else 1
    return _reshaped(input, (*shape[:k], 1, *shape[k:]), (*strides[:k], step, *strides[k:]))


# ---------------------------------------------------------------- any strides

def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None
               ) -> Tensor:
    """The view of the memory under `input` with any shape, strides and offset."""
    size, stride = int_args((size,)), int_args((stride,))
    if len(size) != len(stride):
        raise RuntimeError("mismatch in length of strides and shape")
    if any(n < 0 for n in size):
        raise RuntimeError("as_strided: Negative sizes are not allowed")
    if any(s < 0 for s in stride):
        raise RuntimeError("as_strided: Negative strides are not supported at the moment, got "
                           f"strides: {list(stride)}")
    input._fresh()
    offset = input._offset if storage_offset is None else as_int(storage_offset)
    root = root_of(input)
    spec = root._node.spec
    if input.dtype is not spec.dtype:                   # the memory, read as the view's dtype
        flat = view_of(root, "reshape", (), (spec.numel,), (1,), 0)
        count = spec.numel * spec.dtype.itemsize // input.dtype.itemsize
        root = view_of(flat, "bitcast", (), (count,), (1,), 0, input.dtype)
        spec = root._node.spec
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if 0 not in size and last >= spec.numel:
        raise RuntimeError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset}, "
            f"and itemsize {spec.dtype.itemsize} requiring a storage size of "
            f"{(last + 1) * spec.dtype.itemsize} are out of bounds for storage of size "
            f"{spec.numel * spec.dtype.itemsize}")
    packed = is_packed(spec.shape, strides_of(root))
    if not packed:                     # memory from outside, whose order is not the value's
        order = sorted(range(len(spec.shape)), key=lambda k: -strides_of(root)[k])
        root = permuted(root, order)
        if not is_packed(root._node.spec.shape, strides_of(root)):
            raise RuntimeError("as_strided() is not supported on memory from outside that has "
                               "gaps; clone() the tensor first")
    return view_of(root, "as_strided", (stride, offset), size, stride, offset)


# ---------------------------------------------------------------- in-place forms

def _retarget(name: str, fn: Any) -> None:
    """`name_`: the tensor itself becomes the view that `fn` makes of it."""
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._fresh()
        if self._leaf and self._rg:
            raise GradientError("a leaf Variable that requires grad is being used in an in-place "
                                "operation.")
        made = fn(self, *args, **kwargs)
        self._node, self._storage, self._version = made._node, made._storage, made._version
        self._path, self._strides, self._offset = made._path, made._strides, made._offset
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`{name[:-1]}`, in place: this tensor takes the new shape.  Returns it."
    setattr(Tensor, name, method)


# ---------------------------------------------------------------- registry

def _samples(*calls: Any) -> Any:
    """Samples from (shape, args, kwargs) triples."""
    def make_all(make: Any) -> list[Any]:
        return [((make(*c[0]), *c[1]), c[2] if len(c) > 2 else {}) for c in calls]
    return make_all


def _register(fn: Any, name: str, *calls: Any, method: bool | str = True,
              aliases: tuple[str, ...] = ()) -> None:
    public(fn, name, _FAMILY, method=method, samples=_samples(*calls), aliases=aliases)


_register(_reshape, "reshape", ((2, 6), ((3, 4),)), ((2, 6), ((-1,),)), ((), ((1, 1),)),
          ((0, 3), ((3, 0),)), method=False)
_register(view, "view", ((2, 6), (3, 4)), ((2, 6), ((-1, 3),)), ((5,), (5, 1)))
_register(flatten, "flatten", ((2, 3, 4), ()), ((2, 3, 4), (1,)), ((2, 3, 4), (0, 1)), ((), ()))
_register(ravel, "ravel", ((2, 3), ()), ((), ()))
_register(unflatten, "unflatten", ((2, 6), (1, (2, 3))), ((2, 6), (-1, (-1, 2))))
_register(permute, "permute", ((2, 3, 4), ((2, 0, 1),)), ((2, 3), ((-1, 0),)))
_register(transpose, "transpose", ((2, 3, 4), (0, -1)), ((2, 3), (0, 1)),
          aliases=("swapdims",))
swapaxes = also_named(transpose, {"axis0": "dim0", "axis1": "dim1"})
_register(swapaxes, "swapaxes")
_register(t, "t", ((2, 3), ()), ((4,), ()))
_register(adjoint, "adjoint", ((2, 3, 4), ()))
_register(movedim, "movedim", ((2, 3, 4), (0, 2)), ((2, 3, 4), ((0, 1), (-1, 0))),
          aliases=("moveaxis",))
_register(expand, "expand", ((3, 1), (3, 4)), ((4,), (2, -1)), ((), (2, 2)))
_register(broadcast_to, "broadcast_to", ((3, 1), ((2, 3, 4),)))
_register(squeeze, "squeeze", ((1, 3, 1), ()), ((1, 3, 1), (0,)), ((1, 3, 1), ((0, 2),)))
_register(unsqueeze, "unsqueeze", ((2, 3), (0,)), ((2, 3), (-1,)), ((), (0,)))
_register(as_strided, "as_strided", ((12,), ((3, 2), (4, 1), 1)), ((6,), ((3, 3), (1, 1))))
for _name, _fn in (("reshape", reshape), ("view_as", view_as), ("reshape_as", reshape_as),
                   ("expand_as", expand_as)):
    setattr(Tensor, _name, _fn)
for _name, _part in (("T", _all_reversed), ("mT", _matrix_transposed), ("H", _hermitian),
                   ("mH", adjoint)):
    setattr(Tensor, _name, property(_part, doc=_part.__doc__))
for _name, _change in (("squeeze_", squeeze), ("unsqueeze_", unsqueeze), ("transpose_", transpose),
                   ("t_", t), ("swapaxes_", transpose), ("swapdims_", transpose)):
    _retarget(_name, _change)
