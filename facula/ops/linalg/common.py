"""What the operations of linear algebra share: how they are declared, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facula.dtype import DType, int32
from facula.errors import DTypeError, LinAlgError, ShapeError
from facula.graph.record import _local
from facula.ops.define import cast_first, op
from facula.ops.given import takes_out
from facula.ops.promote import broadcast_shapes, cast, expand_to, type_name
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["FAMILY", "function", "operation", "floating", "matrix", "square", "same_dtype",
           "broadcast_batch", "adjoint", "transposed", "error_codes", "checked", "eps"]

FAMILY = "linalg"


def operation(name: str, **rest: Any) -> Any:
    """`op` under a name of the linear algebra."""
    return op(name=name, family=FAMILY, **rest)


def function(name: str, **rest: Any) -> Any:
    """A plain function, which picks between operations, under a public name; it takes `out=`."""
    def wrap(fn: Callable[..., Any]) -> Callable[..., Any]:
        rest.setdefault("method", False)
        return public(takes_out(cast_first(fn)), name, FAMILY, **rest)
    return wrap


# ---------------------------------------------------------------- operands

def floating(name: str, x: Tensor) -> Tensor:
    """Raise unless `x` has a dtype that LAPACK computes in."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}(): argument 'A' must be Tensor, not {type(x).__name__}")
    dtype: DType = x._node.spec.dtype
    if dtype.kind not in "fc":
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got "
                         f"{type_name(dtype)}")
    if dtype.itemsize < 4:
        raise DTypeError(f"{name}: Low precision dtypes not supported. Got {type_name(dtype)}")
    return x


def matrix(name: str, x: Tensor, argument: str = "A") -> Tensor:
    """Raise unless `x` is a batch of matrices."""
    floating(name, x)
    if x.ndim < 2:
        raise ShapeError(f"{name}: The input tensor {argument} must have at least 2 dimensions.")
    return x


def square(name: str, x: Tensor, argument: str = "A") -> Tensor:
    """Raise unless `x` is a batch of square matrices."""
    matrix(name, x, argument)
    m, n = x._node.spec.shape[-2:]
    if m != n:
        raise ShapeError(f"{name}: {argument} must be batches of square matrices, but they are "
                         f"{m} by {n} matrices")
    return x


def same_dtype(name: str, a: Tensor, b: Tensor) -> None:
    if a.dtype is not b.dtype:
        raise DTypeError(f"{name}: Expected A and B to have the same dtype, but found A of type "
                         f"{type_name(a.dtype)} and B of type {type_name(b.dtype)} instead")


def broadcast_batch(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The two with one batch; their matrices are as they were."""
    sa, sb = a._node.spec.shape, b._node.spec.shape
    batch = tuple(broadcast_shapes(sa[:-2], sb[:-2]))
    return expand_to(a, (*batch, *sa[-2:])), expand_to(b, (*batch, *sb[-2:]))


def transposed(x: Tensor) -> Tensor:
    """The transpose as a value of its own."""
    n = x.ndim
    return prim("permute", x, attrs=((*range(n - 2), n - 1, n - 2),))


def adjoint(x: Tensor) -> Tensor:
    """The conjugate transpose as a value of its own."""
    return transposed(prim("conj", x) if x.dtype.kind == "c" else x)


def eps(dtype: DType) -> float:
    """The distance from 1 to the next number of the dtype."""
    return 2.0 ** -52 if dtype.to_real().itemsize == 8 else 2.0 ** -23


# ---------------------------------------------------------------- error codes

def error_codes(code: Tensor) -> Tensor:
    """A packed code [batch..., 1] as int32 [batch...]."""
    real = prim("real", code) if code.dtype.kind == "c" else code
    return cast(prim("reshape", real, shape=tuple(code.shape[:-1])), int32)


def checked(name: str, value: Tensor, codes: Tensor, message: str) -> Tensor:
    """`value`, after raising a LinAlgError if any of the codes is not 0.

    PyTorch raises where the function is called, so the codes are asked for at once; within an
    operation or a transformed function that is being recorded the check becomes a step of the
    program.
    """
    if _local.rec.depth or _local.rec.outer is not None:
        return prim("checked", value, codes, attrs=(name, message))
    found = codes._peek().reshape(-1)
    bad = found.nonzero()[0]
    if bad.size:
        where = f"(Batch element {bad[0]}): " if codes.ndim else ""
        raise LinAlgError(f"{name}: {where}{message.format(int(found[bad[0]]))}")
    return value
