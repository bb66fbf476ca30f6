"""Products of matrices and vectors, and everything that is one: `matmul` down to `einsum`.

All end in one primitive, a product of matrices with equal batch dimensions.  A matrix that meets
a stack of rows is multiplied once, with the leading dimensions folded into rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from facula.dtype import DType
from facula.errors import DTypeError, ShapeError
from facula.graph.record import _local
from facula.ops.define import autocast_to, op
from facula.ops.keywords import renamed
from facula.ops.promote import broadcast_shapes, cast, expand_to, type_name
from facula.ops.reductions import wrap_dim
from facula.ops.surface import _foreign, number_operand, public
from facula.tensor import Tensor, prim, scalar

__all__ = ["matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "addmm", "addmv", "addbmm",
           "baddbmm", "addr", "tensordot", "chain_matmul", "linear", "bilinear", "product",
           "contract"]

_C_TYPES = {"float32": "float", "float64": "double", "float16": "c10::Half",
            "bfloat16": "c10::BFloat16", "int64": "long", "int32": "int", "int16": "short",
            "int8": "signed char", "uint8": "unsigned char", "bool": "bool",
            "complex64": "c10::complex<float>", "complex128": "c10::complex<double>"}


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _one_dtype(name: str, a: Tensor, b: Tensor) -> DType:
    """The dtype of two factors, which have to agree in it."""
    x, y = a.dtype, b.dtype
    if x is not y:
        raise DTypeError(
            "expected m1 and m2 to have the same dtype, but got: "
            f"{_C_TYPES.get(x.name, x.name)} != {_C_TYPES.get(y.name, y.name)}. Convert one of "
            f"them with .to(dtype): {x!r} and {y!r} meet in {name}")
    if x.kind == "b":
        raise DTypeError(f'"{name}" not implemented for \'Bool\'')
    return x


# ---------------------------------------------------------------- values

def _rows_by_columns(a: Tensor, b: Tensor) -> Tensor:
    """(..., m, k) by (k, n): one product, the leading dimensions folded into rows."""
    sa, sb = a._node.spec.shape, b._node.spec.shape
    rows = prod(sa[:-1])
    if sa[-1] != sb[0]:
        raise ShapeError(f"mat1 and mat2 shapes cannot be multiplied ({rows}x{sa[-1]} and "
                         f"{_text(sb)})")
    if len(sa) == 2:
        return prim("matmul", a, b)
    out = prim("matmul", prim("reshape", a, shape=(rows, sa[-1])), b)
    return prim("reshape", out, shape=(*sa[:-1], sb[1]))


def swapped(x: Tensor) -> Tensor:
    """The value with its last two dimensions exchanged."""
    n = x.ndim
    return prim("permute", x, attrs=((*range(n - 2), n - 1, n - 2),))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    sa, sb = a._node.spec.shape, b._node.spec.shape
    if sa != sb:
        raise ShapeError(
            f"inconsistent tensor size, expected tensor {list(sa)} and src {list(sb)} to have "
            f"the same number of elements, but got {sa[0]} and {sb[0]} elements respectively")
    if a.dtype.itemsize == 2 and a.dtype.kind == "f":     # their products are not to be rounded
        out = prim("matmul", prim("reshape", a, shape=(1, sa[0])),
                   prim("reshape", b, shape=(sa[0], 1)))
        return prim("reshape", out, shape=())
    return prim("sum", prim("mul", a, b), attrs=((0,),))


def _matrix_vector(a: Tensor, b: Tensor) -> Tensor:
    sa, sb = a._node.spec.shape, b._node.spec.shape
    if sa[-1] != sb[0]:
        raise ShapeError(f"size mismatch, got input ({prod(sa[:-1])}), mat "
                         f"({prod(sa[:-1])}x{sa[-1]}), vec ({sb[0]})")
    out = _rows_by_columns(a, prim("reshape", b, shape=(sb[0], 1)))
    return prim("reshape", out, shape=sa[:-1])


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` as values, whatever their dimensions; they are of one dtype."""
    na, nb = a.ndim, b.ndim
    if not na or not nb:
        raise RuntimeError("both arguments to matmul need to be at least 1D, but they are "
                           f"{na}D and {nb}D")
    if na == 1 and nb == 1:
        return _dot(a, b)
    if nb == 1:
        return _matrix_vector(a, b)
    if na == 1:
        sa, sb = a._node.spec.shape, b._node.spec.shape
        if nb > 2:
            return _matrix_vector(swapped(b), a)
        if sa[0] != sb[0]:
            raise ShapeError(f"mat1 and mat2 shapes cannot be multiplied (1x{sa[0]} and "
                             f"{_text(sb)})")
        out = prim("matmul", prim("reshape", a, shape=(1, sa[0])), b)
        return prim("reshape", out, shape=(sb[1],))
    if nb == 2:
        return _rows_by_columns(a, b)
    sa, sb = a._node.spec.shape, b._node.spec.shape
    batch = tuple(broadcast_shapes(sa[:-2], sb[:-2]))
    if sa[-1] != sb[-2]:
        raise ShapeError(
            f"Expected size for first two dimensions of batch2 tensor to be: "
            f"[{prod(batch)}, {sa[-1]}] but got: [{prod(batch)}, {sb[-2]}]: matmul of shapes "
            f"{tuple(sa)} and {tuple(sb)}.")
    if prod(sb[:-2]) == 1 and na > 2 and len(batch) == na - 2:
        return _rows_by_columns(a, prim("reshape", b, shape=sb[-2:]))
    return prim("matmul", expand_to(a, (*batch, *sa[-2:])), expand_to(b, (*batch, *sb[-2:])))


# ---------------------------------------------------------------- public products

@op(method=True, samples=lambda make: [
    ((make(3, 4), make(4, 5)), {}), ((make(2, 3, 4), make(4, 5)), {}), ((make(4), make(4)), {}),
    ((make(2, 3, 4), make(2, 4, 5)), {}), ((make(3, 4), make(4)), {}), ((make(4), make(4, 2)), {}),
    ((make(3, 1, 2, 4), make(2, 4, 3)), {}), ((make(3, 4), make(2, 4, 3)), {}),
    ((make(4), make(2, 4, 3)), {}), ((make(2, 3, 4), make(4)), {}), ((make(2, 0), make(0, 3)), {})])
@autocast_to("lower")
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product; 1-d operands are vectors, further leading dimensions broadcast.

    (..., m, k) @ (..., k, n) -> (..., m, n).  ShapeError where k differs, DTypeError where the
    dtypes do.
    """
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        wrong = other if isinstance(input, Tensor) else input
        raise TypeError(f"matmul(): expected tensors, got {type(wrong).__name__}")
    _one_dtype("matmul", input, other)
    return product(input, other)


def _matmul_operator(self: Tensor, other: Any) -> Any:
    """`self @ other`."""
    if not isinstance(other, Tensor):
        other = _foreign(other)
        if other is None:
            return NotImplemented
        if not isinstance(other, Tensor):
            return NotImplemented
    return matmul(self, other)


def _rmatmul_operator(self: Tensor, other: Any) -> Any:
    """`other @ self`."""
    other = other if isinstance(other, Tensor) else _foreign(other)
    return matmul(other, self) if isinstance(other, Tensor) else NotImplemented


def _imatmul_operator(self: Tensor, other: Any) -> Any:
    """`self @= other`."""
    start = _local.rec.graph.state.count
    value = _matmul_operator(self, other)
    return value if value is NotImplemented else self._write(value, start=start)


Tensor.__matmul__ = _matmul_operator                    # type: ignore[attr-defined]
Tensor.__rmatmul__ = _rmatmul_operator                  # type: ignore[attr-defined]
Tensor.__imatmul__ = _imatmul_operator                  # type: ignore[attr-defined]


def _need(x: Tensor, ndim: int, message: str) -> None:
    if x.ndim != ndim:
        raise RuntimeError(message)


@op(method=True, samples=lambda make: [((make(3, 4), make(4, 5)), {}),
                                       ((make(1, 1), make(1, 1)), {})])
@autocast_to("lower")
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    _need(input, 2, "self must be a matrix")
    _need(mat2, 2, "mat2 must be a matrix")
    _one_dtype("mm", input, mat2)
    return _rows_by_columns(input, mat2)


@op(method=True, samples=lambda make: [((make(2, 3, 4), make(2, 4, 5)), {})])
@autocast_to("lower")
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of matrices (b, m, k) by (b, k, n)."""
    return _bmm(input, mat2)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    _need(a, 3, "batch1 must be a 3D tensor")
    _need(b, 3, "batch2 must be a 3D tensor")
    if a.dtype is not b.dtype:
        raise DTypeError(f"expected scalar type {type_name(a.dtype)} but found "
                         f"{type_name(b.dtype)}")
    _one_dtype("bmm", a, b)
    sa, sb = a._node.spec.shape, b._node.spec.shape
    if sb[:2] != (sa[0], sa[2]):
        raise ShapeError("Expected size for first two dimensions of batch2 tensor to be: "
                         f"[{sa[0]}, {sa[2]}] but got: [{sb[0]}, {sb[1]}].")
    return prim("matmul", a, b)


@op(method=True, samples=lambda make: [((make(3, 4), make(4)), {})])
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    return _mv(input, vec)


def _mv(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim != 2 or b.ndim != 1:
        raise RuntimeError("vector + matrix @ vector expected, got "
                           f"1, {a.ndim}, {b.ndim}")
    _one_dtype("mv", a, b)
    return _matrix_vector(a, b)


def _vectors(name: str, a: Tensor, b: Tensor) -> None:
    if a.ndim != 1 or b.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {a.ndim}D and {b.ndim}D tensors")
    if a.dtype is not b.dtype:
        raise DTypeError(f"{name} : expected both vectors to have same dtype, but found "
                         f"{type_name(a.dtype)} and {type_name(b.dtype)}")
    if a.dtype.kind == "b":
        raise DTypeError(f'"{name}" not implemented for \'Bool\'')


@op(method=True, samples=lambda make: [((make(4), make(4)), {}), ((make(0), make(0)), {})])
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors."""
    _vectors("dot", input, tensor)
    return _dot(input, tensor)


@op(method=True, samples=lambda make: [((make(4), make(4)), {})])
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The inner product of two vectors, the first conjugated."""
    _vectors("vdot", input, other)
    return _dot(prim("conj", input) if input.dtype.kind == "c" else input, other)


@op(method=True, samples=lambda make: [((make(2, 3), make(4, 3)), {}), ((make(3), make(3)), {}),
                                       ((make(), make(2, 3)), {})])
@autocast_to("lower")
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimension of both."""
    dtype = _one_dtype("inner", input, other)
    sa, sb = input._node.spec.shape, other._node.spec.shape
    if not sa or not sb:
        shape = sa or sb
        return prim("mul", expand_to(input, shape), expand_to(other, shape))
    if sa[-1] != sb[-1]:
        raise ShapeError(f"inner() the last dimension must match on both input tensors but got "
                         f"shapes {list(sa)} and {list(sb)}")
    if len(sa) == 1 and len(sb) == 1:
        return _dot(input, other)
    k = sa[-1]
    out = prim("matmul", prim("reshape", input, shape=(prod(sa[:-1]), k)),
               swapped(prim("reshape", other, shape=(prod(sb[:-1]), k))))
    assert out.dtype is dtype
    return prim("reshape", out, shape=(*sa[:-1], *sb[:-1]))


# ---------------------------------------------------------------- products added to something

def _times(x: Tensor, factor: Any) -> Tensor:
    """x by a number, 1 standing for nothing to do, or by a zero-dim tensor."""
    if not isinstance(factor, Tensor):
        return x
    return prim("mul", x, expand_to(cast(factor, x.dtype), x.shape))


def _plus(input: Tensor, value: Tensor, beta: Any, alpha: Any) -> Tensor:
    """beta * input + alpha * value; with beta 0 (None), input is not looked at."""
    value = _times(value, alpha)
    if input.dtype is not value.dtype:
        raise DTypeError("self and mat2 must have the same dtype, but got "
                         f"{type_name(input.dtype)} and {type_name(value.dtype)}")
    shape = value._node.spec.shape
    have = input._node.spec.shape
    if tuple(broadcast_shapes(have, shape)) != shape:
        raise ShapeError(f"The expanded size of the tensor ({list(shape)}) must match the "
                         f"existing size ({list(have)})")
    if beta is None:
        return value
    return prim("add", expand_to(_times(input, beta), shape), value)


def _factor(value: Any, dtype: DType, zero: bool = False) -> Any:
    """A number as `_times` takes it: 1 as it is, another a runtime scalar; 0 None if `zero`."""
    if isinstance(value, Tensor):
        return value
    if value == 1:
        return 1
    if zero and value == 0:
        return None
    return scalar(number_operand(value, dtype), dtype)


def _addition(name: str, operands: tuple[str, str], multiply: Any, doc: str, samples: Any) -> Any:
    """The public function beta * input + alpha * multiply(a, b), which calls a and b `operands`."""
    def body(input: Tensor, a: Tensor, b: Tensor, beta: Any, alpha: Any) -> Tensor:
        return _plus(input, multiply(a, b), beta, alpha)

    body.__name__ = body.__qualname__ = name
    if name.endswith("mm"):             # addmv and addr are not among what PyTorch lowers
        autocast_to("lower")(body)
    call = op(body, register=False)

    def add(input: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1,
            out: Any = None) -> Tensor:
        dtype = input.dtype
        rest = {} if out is None else {"out": out}
        result: Tensor = call(input, a, b, _factor(beta, dtype, True), _factor(alpha, dtype),
                              **rest)
        return result

    fn = renamed(add, {operands[0]: "a", operands[1]: "b"})
    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    return public(fn, name, "contractions", inplace=True, samples=samples)


def _mm_value(a: Tensor, b: Tensor) -> Tensor:
    _need(a, 2, f"mat1 must be a matrix, got {a.ndim}-D tensor")
    _need(b, 2, f"mat2 must be a matrix, got {b.ndim}-D tensor")
    _one_dtype("addmm", a, b)
    return _rows_by_columns(a, b)


def _summed_bmm(a: Tensor, b: Tensor) -> Tensor:
    """The sum over a batch of products, as one product with a longer inner dimension."""
    _need(a, 3, "batch1 must be a 3D tensor")
    _need(b, 3, "batch2 must be a 3D tensor")
    _one_dtype("addbmm", a, b)
    (n, m, k), (n2, k2, p) = a._node.spec.shape, b._node.spec.shape
    if n != n2:
        raise ShapeError("batch1 and batch2 must have same number of batches, got "
                         f"{n} and {n2}")
    if k != k2:
        raise ShapeError(f"Incompatible matrix sizes for bmm ({m}x{k} and {k2}x{p})")
    left = prim("reshape", prim("permute", a, attrs=((1, 0, 2),)), shape=(m, n * k))
    return prim("matmul", left, prim("reshape", b, shape=(n * k, p)))


def _outer_value(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim != 1 or b.ndim != 1:
        raise RuntimeError(f"addr: Expected 1-D argument vec1 and vec2, but got {a.ndim}-D and "
                           f"{b.ndim}-D")
    shape = (a.numel(), b.numel())
    dtype = a.dtype
    return prim("logical_and" if dtype.kind == "b" else "mul",
                expand_to(prim("reshape", a, shape=(shape[0], 1)), shape),
                expand_to(cast(b, dtype), shape))


addmm = _addition(
    "addmm", ("mat1", "mat2"), _mm_value, "beta * input + alpha * (mat1 @ mat2).", lambda make: [
        ((make(3, 5), make(3, 4), make(4, 5)), {}),
        ((make(5), make(3, 4), make(4, 5)), {"beta": 0.5, "alpha": 2.0})])
addmv = _addition(
    "addmv", ("mat", "vec"), _mv, "beta * input + alpha * (mat @ vec).", lambda make: [
        ((make(3), make(3, 4), make(4)), {}), ((make(3), make(3, 4), make(4)), {"alpha": 0.5})])
baddbmm = _addition(
    "baddbmm", ("batch1", "batch2"), _bmm,
    "beta * input + alpha * (batch1 @ batch2), for each of the batch.",
    lambda make: [((make(2, 3, 5), make(2, 3, 4), make(2, 4, 5)), {"beta": 0.5})])
addbmm = _addition(
    "addbmm", ("batch1", "batch2"), _summed_bmm,
    "beta * input + alpha * the sum of batch1 @ batch2.",
    lambda make: [((make(3, 5), make(2, 3, 4), make(2, 4, 5)), {})])
addr = _addition("addr", ("vec1", "vec2"), _outer_value,
                 "beta * input + alpha * outer(vec1, vec2).", lambda make: [
    ((make(3, 4), make(3), make(4)), {}), ((make(3, 4), make(3), make(4)), {"alpha": 0.5})])


# ---------------------------------------------------------------- layers

@op(register=False)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias: (..., in) and (out, in) -> (..., out), as one product."""
    _one_dtype("linear", input, weight)
    s, w = input._node.spec.shape, weight._node.spec.shape
    if not s:
        raise RuntimeError(f"both arguments to linear need to be at least 1D, but they are 0D "
                           f"and {len(w)}D")
    if len(w) == 1:
        out = _matrix_vector(input, weight) if len(s) > 1 else _dot(input, weight)
        return out if bias is None else prim("add", *(expand_to(v, out.shape)
                                                      for v in (out, bias)))
    rows = prod(s[:-1])
    if s[-1] != w[1]:
        raise ShapeError(f"mat1 and mat2 shapes cannot be multiplied ({rows}x{s[-1]} and "
                         f"{w[1]}x{w[0]})")
    x = input if len(s) == 2 else prim("reshape", input, shape=(rows, s[-1]))
    out = prim("matmul", x, swapped(weight))
    if bias is not None:
        if bias.dtype is not out.dtype:
            raise DTypeError("self and mat2 must have the same dtype, but got "
                             f"{type_name(bias.dtype)} and {type_name(out.dtype)}")
        out = prim("add", out, expand_to(bias, out.shape))
    return out if len(s) == 2 else prim("reshape", out, shape=(*s[:-1], w[0]))


@op(register=False)
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
             ) -> Tensor:
    """input1 @ weight[k] @ input2 + bias: (..., a), (..., b), (out, a, b) -> (..., out)."""
    s1, s2, w = (t._node.spec.shape for t in (input1, input2, weight))
    if s1[:-1] != s2[:-1]:
        raise ShapeError(f"bilinear(): input batch dimensions do not match: {list(s1)} and "
                         f"{list(s2)}")
    if len(w) != 3 or (s1[-1], s2[-1]) != w[1:]:
        raise ShapeError(f"bilinear(): input1 and input2 sizes {s1[-1]} and {s2[-1]} do not match "
                         f"the weight of shape {list(w)}")
    rows = prod(s1[:-1])
    a = prim("reshape", input1, shape=(rows, s1[-1]))
    b = prim("reshape", input2, shape=(rows, s2[-1]))
    flat = prim("reshape", prim("permute", weight, attrs=((1, 0, 2),)),
                shape=(w[1], w[0] * w[2]))
    left = prim("reshape", prim("matmul", a, flat), shape=(rows, w[0], w[2]))
    wide = expand_to(prim("reshape", b, shape=(rows, 1, w[2])), left.shape)
    out = prim("sum", prim("mul", left, wide), attrs=((2,),))
    if bias is not None:
        out = prim("add", out, expand_to(bias, out.shape))
    return prim("reshape", out, shape=(*s1[:-1], w[0]))


# ---------------------------------------------------------------- general contractions

def contract(a: Tensor, b: Tensor, da: Sequence[int], db: Sequence[int]) -> Tensor:
    """Sums of products over dimensions da of a and db of b; the others of a, then of b remain."""
    sa, sb = a._node.spec.shape, b._node.spec.shape
    rest_a = [k for k in range(len(sa)) if k not in da]
    rest_b = [k for k in range(len(sb)) if k not in db]
    k = prod(sa[d] for d in da)
    m, n = prod(sa[d] for d in rest_a), prod(sb[d] for d in rest_b)
    left = prim("reshape", prim("permute", a, attrs=((*rest_a, *da),)), shape=(m, k))
    right = prim("reshape", prim("permute", b, attrs=((*db, *rest_b),)), shape=(k, n))
    return prim("reshape", prim("matmul", left, right),
                shape=(*(sa[d] for d in rest_a), *(sb[d] for d in rest_b)))


@op(samples=lambda make: [((make(2, 3, 4), make(3, 4, 5)), {}), ((make(2, 3), make(4, 5), 0), {}),
                          ((make(2, 3, 4), make(4, 3), ([1, 2], [1, 0])), {})])
@autocast_to("lower")
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sums of products over several dimensions: the last `dims` of a with the first of b, or
    the two lists of dimensions given."""
    _one_dtype("tensordot", a, b)
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        da: list[int] = list(range(a.ndim - dims, a.ndim))
        db: list[int] = list(range(dims))
    else:
        first, second = dims
        first = [first] if isinstance(first, int) else list(first)
        second = [second] if isinstance(second, int) else list(second)
        da, db = [wrap_dim(d, a.ndim) for d in first], [wrap_dim(d, b.ndim) for d in second]
        if len(da) != len(db):
            raise RuntimeError("both dimension lists should have same length")
    sa, sb = a._node.spec.shape, b._node.spec.shape
    for k, (i, j) in enumerate(zip(da, db)):
        if sa[i] == sb[j]:
            continue
        if sa[i] == 1:                          # a size of 1 stands for any, as in broadcasting
            b = prim("reshape", prim("sum", b, attrs=((j,),)), shape=(*sb[:j], 1, *sb[j + 1:]))
            sb = b._node.spec.shape
        elif sb[j] == 1:
            a = prim("reshape", prim("sum", a, attrs=((i,),)), shape=(*sa[:i], 1, *sa[i + 1:]))
            sa = a._node.spec.shape
        else:
            raise ShapeError(f"contracted dimensions need to match, but first has size {sa[i]} in "
                             f"dim {i} and second has size {sb[j]} in dim {j}")
    return contract(a, b, da, db)


@op(samples=lambda make: [((make(2, 3), make(3, 4), make(4, 2)), {})])
@autocast_to("lower")
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices, in the order that takes the fewest multiplications."""
    ms = list(matrices[0]) if len(matrices) == 1 and isinstance(matrices[0], (tuple, list)) \
        else list(matrices)
    for m in ms:
        _need(m, 2, f"Tensor dimension is {m.ndim}, expected 2 instead.")
    if len(ms) == 1:
        return prim("alias", ms[0])
    return _chain(ms)


def _chain(ms: Sequence[Tensor]) -> Tensor:
    """Dynamic programming over where to split (Cormen et al., "Introduction to Algorithms")."""
    n = len(ms)
    sizes = [ms[0].shape[0], *(m.shape[1] for m in ms)]
    cost = [[0] * n for _ in range(n)]
    cut = [[0] * n for _ in range(n)]
    for length in range(2, n + 1):
        for i in range(n - length + 1):
            j = i + length - 1
            cost[i][j], cut[i][j] = min(
                (cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j))

    def multiply(i: int, j: int) -> Tensor:
        if i == j:
            return ms[i]
        k = cut[i][j]
        a, b = multiply(i, k), multiply(k + 1, j)
        _one_dtype("chain_matmul", a, b)
        return _rows_by_columns(a, b)

    return multiply(0, n - 1)
