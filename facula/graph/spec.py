"""What is known of a value before it exists (`Spec`), and one recorded operation (`Step`).

Both are compared and looked up; `freeze_number` makes numbers fit for that.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from facula.dtype import DType

__all__ = ["Spec", "Step", "spec", "freeze_number"]


class Spec:
    """Shape and dtype of a value.  Interned: equal specs are the same object."""

    __slots__ = ("shape", "dtype", "numel", "__weakref__")

    shape: tuple[int, ...]
    dtype: DType
    numel: int

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


MAX_SPECS = 65536
"""So many specs are held; of more, those that somebody else holds."""

_interned: dict[tuple[tuple[int, ...], DType], Spec] = {}
_retired: WeakValueDictionary[tuple[tuple[int, ...], DType], Spec] = WeakValueDictionary()


def spec(shape: tuple[int, ...], dtype: DType) -> Spec:
    """The one `Spec` of this shape and dtype."""
    found = _interned.get((shape, dtype))
    if found is None:
        found = _retired.get((shape, dtype))
        if found is None:
            found = Spec()
            found.shape = shape = tuple(map(int, shape))
            found.dtype = dtype
            found.numel = prod(shape)
        found = _interned.setdefault((shape, dtype), found)
        if len(_interned) > MAX_SPECS:
            _retire()
    return found


def _retire() -> None:
    """Let go of all specs; those in use are found again, and are held again when they are.

    One by one, and first entered there and then removed here: another thread finds each of them.
    """
    for key in list(_interned):
        held = _interned.get(key)
        if held is not None:
            _retired[key] = held
            del held
            _interned.pop(key, None)


class Step:
    """One recorded operation: its inputs are the indices of earlier steps of the same graph.

    `mask` has bit i set where a gradient flows from the result to input i; 0 means that the
    result is a constant for autograd.  `where` is the user's line that first recorded it; `view`
    says that the result aliases its first input.
    """

    __slots__ = ("op", "attrs", "inputs", "spec", "mask", "where", "view")

    def __init__(self, op: str, attrs: tuple[Any, ...], inputs: tuple[int, ...], spec: Spec,
                 mask: int = 0, where: str | None = None, view: bool = False):
        self.op = op
        self.attrs = attrs
        self.inputs = inputs
        self.spec = spec
        self.mask = mask
        self.where = where
        self.view = view

    def __repr__(self) -> str:
        args = ", ".join(f"%{i}" for i in self.inputs)
        tail = f" {self.attrs}" if self.attrs else ""
        return f"{self.op}({args}){tail} -> {self.spec}"


def freeze_number(value: Any) -> Any:
    """A number as a key that tells 0.0 from -0.0 and finds nan again."""
    if isinstance(value, float):
        if value != value:
            return _Nan
        if value == 0.0 and str(value)[0] == "-":
            return _NegativeZero
    return value


class _Float(float):
    """A float that is its own key: equal only to itself."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


_Nan = _Float("nan")
_NegativeZero = _Float("-0.0")
