"""The private `torch._foreach_*`: one operation for each tensor of a list.

They are loops; the graph they record is compiled as one program anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula.tensor import Tensor

__all__ = ["FOREACH", "find"]

_UNARY = """abs acos asin atan ceil cos cosh erf erfc exp expm1 floor frac lgamma log log10 log1p
log2 neg reciprocal round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc zero""".split()
_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "pow": "pow", "lerp": "lerp",
           "clamp_max": "clamp_max", "clamp_min": "clamp_min", "maximum": "clamp_min",
           "minimum": "clamp_max", "copy": "copy"}
_TERNARY = ("addcmul", "addcdiv")


def _each(value: Any, count: int, name: str) -> list[Any]:
    """`value` for each tensor: a list as it is, anything else repeated."""
    if isinstance(value, (list, tuple)):
        if len(value) != count:
            raise RuntimeError(f"_foreach_{name}: Tensor lists must have the same number of "
                               f"tensors, got {count} and {len(value)}")
        return list(value)
    if isinstance(value, Tensor) and value.ndim == 1 and value.shape[0] == count and count > 1:
        return list(value.unbind())                      # type: ignore[attr-defined]
    return [value] * count


def _unary(name: str) -> Callable[..., Any]:
    def call(self: Sequence[Tensor]) -> list[Tensor]:
        return [getattr(t, name)() for t in self]
    return call


def _binary(name: str, method: str) -> Callable[..., Any]:
    def call(self: Sequence[Tensor], other: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
        others = _each(other, len(self), name)
        if name == "lerp":                              # lerp(self, ends, weight or weights)
            weights = _each(args[0] if args else kwargs["weight"], len(self), name)
            return [getattr(t, method)(o, w) for t, o, w in zip(self, others, weights)]
        return [getattr(t, method)(o, *args, **kwargs) for t, o in zip(self, others)]
    return call


def _ternary(name: str, method: str) -> Callable[..., Any]:
    def call(self: Sequence[Tensor], tensor1: Sequence[Tensor], tensor2: Sequence[Tensor],
             value: Any = 1) -> list[Tensor]:
        values = _each(value, len(self), name)
        out = []
        for t, a, b, v in zip(self, tensor1, tensor2, values):
            v = v.item() if isinstance(v, Tensor) else v  # type: ignore[attr-defined]
            out.append(getattr(t, method)(a, b, value=v))
        return out
    return call


def _pow_scalar(base: Any, exponents: Sequence[Tensor]) -> list[Tensor]:
    return [base ** e for e in exponents]


def _pow(self: Any, exponent: Any) -> list[Tensor]:
    if not isinstance(self, (list, tuple)):
        return _pow_scalar(self, exponent)
    return [t ** e for t, e in zip(self, _each(exponent, len(self), "pow"))]


def _norm(self: Sequence[Tensor], ord: Any = 2, dtype: Any = None) -> list[Tensor]:
    from facula.ops.linalg.norms import vector_norm
    return [vector_norm(t, ord, dtype=dtype) for t in self]


def _max(self: Sequence[Tensor]) -> list[Tensor]:
    return [t.max() for t in self]                       # type: ignore[attr-defined]


FOREACH: dict[str, Callable[..., Any]] = {}
"""Each function by its name without the prefix."""

for _name in _UNARY:
    if _name != "zero":
        FOREACH[_name] = _unary(_name)
    FOREACH[f"{_name}_"] = _unary(f"{_name}_")
for _name, _method in _BINARY.items():
    if _name != "copy":
        FOREACH[_name] = _binary(_name, _method)
    FOREACH[f"{_name}_"] = _binary(_name, f"{_method}_")
for _name in _TERNARY:
    FOREACH[_name] = _ternary(_name, _name)
    FOREACH[f"{_name}_"] = _ternary(_name, f"{_name}_")
FOREACH |= {"pow": _pow, "norm": _norm, "max": _max, "clone": _unary("clone")}


def find(name: str) -> Callable[..., Any] | None:
    """The function `_foreach_...` of this full name, or None."""
    found = FOREACH.get(name.removeprefix("_foreach_"))
    if found is not None:
        found.__name__ = name
    return found
