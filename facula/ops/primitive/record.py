"""The record that declares one primitive, and what the families share to write theirs.

A primitive is an operation the compiler knows: its operands agree in shape and dtype (nothing
is broadcast or promoted down here) and it has one result.  Its record holds the rule for the
result's `Spec`, its meaning in NumPy (the oracle of every compiled kernel), its derivatives and
sample inputs; tests, the interpreter, autograd and the fuzzer all walk the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facula.dtype import DType
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import BY_KIND, Rule

__all__ = ["PRIMS", "Primitive", "Sample", "register", "infer_same", "infer_to_bool",
           "check_axis", "fits_kind", "compute_dtype", "through_f32", "shapes_text"]

Infer = Callable[[Sequence[Spec], tuple[Any, ...], "Spec | None"], Spec]
Meaning = Callable[[Sequence[np.ndarray], tuple[Any, ...], Spec], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One set of inputs: the arrays, the attributes, and the result's shape or dtype where
    the caller has to give it (reshape, cast, ...)."""

    arrays: tuple[np.ndarray, ...]
    attrs: tuple[Any, ...] = ()
    shape: tuple[int, ...] | None = None
    dtype: DType | None = None


@dataclass(frozen=True)
class Primitive:
    """What is declared of one primitive.

    `infer(specs, attrs, given)` returns the result's Spec or raises a ShapeError or DTypeError;
    `given` is the Spec the caller asked for, where the operation leaves it a choice.
    `numpy(arrays, attrs, spec)` computes it; the result may alias an input.
    `vjp(c, g)` returns one gradient (or None) per input; `c` has inputs, out, attrs and needs.
    `jvp(c, tangents)` returns the tangent of the result, tangents being Tensors or None.
    `saves` names what the vjp reads besides shapes and dtypes: 'in0', 'in1', ..., 'out'; where
    that depends on the attributes it is a function of them.  `saves_for[k]`, where given, names
    those of them that the gradient of input k reads; the others are not kept for it.
    `batch(b)` records the results of a whole batch, see `facula.ops.primitive.batching`.
    `seconds`: what an element costs in NumPy, roughly.
    `terms(specs, attrs, out)`, of a contraction, says of how many products an element is the sum.
    """

    name: str
    kind: str
    infer: Infer
    numpy: Meaning
    vjp: Callable[[Any, Any], tuple[Any, ...]] | None = None
    jvp: Callable[[Any, tuple[Any, ...]], Any] | None = None
    saves: tuple[str, ...] | Callable[[tuple[Any, ...]], tuple[str, ...]] = ()
    samples: Callable[[Callable[..., np.ndarray]], list[Sample]] = field(default=lambda make: [])
    saves_for: tuple[tuple[str, ...], ...] = ()
    batch: Rule | None = None
    terms: Callable[[Sequence[Spec], tuple[Any, ...], Spec], int] | None = None
    seconds: float = 2e-9

    def reads(self, attrs: tuple[Any, ...], mask: int = -1) -> tuple[str, ...]:
        """What the vjp of a step with these attributes reads; bit k of `mask` is set where the
        gradient of input k is wanted."""
        if self.saves_for:
            names = [n for k, each in enumerate(self.saves_for) if mask >> k & 1 for n in each]
            return tuple(dict.fromkeys(names))
        return self.saves(attrs) if callable(self.saves) else self.saves

    @property
    def differentiable(self) -> bool:
        return self.vjp is not None


PRIMS: dict[str, Primitive] = {}


def register(name: str, kind: str, infer: Infer, numpy: Meaning, **rest: Any) -> Primitive:
    """Enter a primitive into `PRIMS`; a name can be declared once."""
    if name in PRIMS:
        raise ValueError(f"primitive {name!r} is declared already")
    rest.setdefault("batch", BY_KIND.get(kind))
    rest.setdefault("seconds", 1e-6 if kind == "special" else 2e-9)     # series and iterations
    PRIMS[name] = record = Primitive(name, kind, infer, numpy, **rest)
    return record


# ---------------------------------------------------------------- rules for shapes and dtypes

_KIND_NAMES = {"b": "bool", "u": "unsigned", "i": "integer", "f": "floating point",
               "c": "complex"}


def shapes_text(specs: Sequence[Spec]) -> str:
    """'(2, 3) and (4,)', for messages."""
    return " and ".join(str(s.shape) for s in specs)


def fits_kind(name: str, operand: Spec, kinds: str) -> None:
    """Raise a DTypeError unless the operand's dtype is of one of these kinds."""
    if operand.dtype.kind not in kinds:
        allowed = ", ".join(_KIND_NAMES[k] for k in kinds)
        raise DTypeError(
            f"{name}: not defined for {operand.dtype!r}; it takes {allowed} tensors. "
            "Convert the operand with .to(dtype) first")


def _agree(name: str, specs: Sequence[Spec]) -> None:
    first = specs[0]
    for other in specs[1:]:
        if other.shape != first.shape:
            raise ShapeError(f"{name}: the operands' shapes differ: {shapes_text(specs)}")
        if other.dtype is not first.dtype:
            kinds = " and ".join(repr(s.dtype) for s in specs)
            raise DTypeError(f"{name}: the operands' dtypes differ: {kinds}")


def infer_same(name: str, count: int, kinds: str) -> Infer:
    """`count` operands of one spec, and a result of that spec."""
    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        _count(name, specs, count)
        _agree(name, specs)
        fits_kind(name, specs[0], kinds)
        return specs[0]
    return infer


def infer_to_bool(name: str, count: int, kinds: str) -> Infer:
    """`count` operands of one spec, and a bool result of their shape."""
    from facula.dtype import bool_

    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        _count(name, specs, count)
        _agree(name, specs)
        fits_kind(name, specs[0], kinds)
        return spec(specs[0].shape, bool_)
    return infer


def _count(name: str, specs: Sequence[Spec], count: int) -> None:
    if len(specs) != count:
        raise TypeError(f"{name} takes {count} operands, not {len(specs)}")


def check_axis(name: str, axis: int, ndim: int) -> None:
    """Raise an IndexError unless 0 <= axis < ndim (callers wrap negative axes)."""
    if not 0 <= axis < ndim:
        raise IndexError(f"{name}: dimension {axis} is out of range for a tensor of {ndim} "
                         "dimensions")


# ---------------------------------------------------------------- how NumPy computes it

_F32 = np.dtype(np.float32)


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """float32 for the two 16-bit floating types, else the dtype itself.

    Arithmetic on 16-bit values is done in float32 and rounded once, as compiled kernels do.
    """
    # ml_dtypes registers bfloat16 with kind 'V', so size and kind together single them out.
    return _F32 if dtype.itemsize == 2 and dtype.kind in "fV" else dtype


def through_f32(fn: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """`fn` on arrays, computed in float32 and rounded back where the arrays are 16-bit floats."""
    def run(*arrays: np.ndarray) -> np.ndarray:
        dtype = arrays[0].dtype
        wide = compute_dtype(dtype)
        if wide is dtype:
            return np.asarray(fn(*arrays))
        out = np.asarray(fn(*(a.astype(wide) for a in arrays)))
        return out.astype(dtype) if out.dtype == wide else out
    return run
