"""Index arithmetic: affine expressions over loop variables, with quotients where they must be.

Every movement operation is a map from the index of an element of its result to the index of an
element of its input.  The maps compose here, symbolically, so that a chain of reshapes, slices
and transposes costs one address computation in the kernel and no pass over memory.

An `Index` is sum(coefficient * variable) + constant.  A `Var` is a loop variable or something that
is not affine (a quotient, a remainder, a loaded index), which then counts as a variable of its own.
Both know their range, which is what lets `(128*i + j) // 128` become `i` again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

__all__ = ["Var", "Index", "const", "loop_var", "flatten", "unflatten", "row_major",
           "quotient", "remainder", "variables"]


class Var:
    """A loop variable ('loop') or a non-affine value ('div', 'mod', 'load', 'clamp').

    `args` identify it: equal kind and args mean an equal value.  0 <= value < `extent`.
    """

    __slots__ = ("kind", "args", "extent", "order", "_hash", "_text")

    def __init__(self, kind: str, args: tuple[Any, ...], extent: int, order: int = 0):
        self.kind = kind
        self.args = args
        self.extent = extent
        self.order = order
        self._hash = hash((kind, args))
        self._text = ""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Var) and self._hash == other._hash
                                 and self.kind == other.kind and self.args == other.args)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if not self._text:
            self._text = (f"{self.args[0]}" if self.kind == "loop" else f"{self.kind}{self.args}")
        return self._text


class Index:
    """sum(coef * var) + offset; immutable, equal by content."""

    __slots__ = ("terms", "offset", "_hash")

    def __init__(self, terms: tuple[tuple[Var, int], ...], offset: int):
        self.terms = terms
        self.offset = offset
        self._hash: int | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Index) and self.offset == other.offset
                                 and hash(self) == hash(other) and self.terms == other.terms)

    def __hash__(self) -> int:
        found = self._hash
        if found is None:
            found = self._hash = hash((self.terms, self.offset))
        return found

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            return Index(self.terms, self.offset + other)
        if not self.terms:
            return Index(other.terms, other.offset + self.offset)
        if not other.terms:
            return Index(self.terms, other.offset + self.offset)
        if len(other.terms) == len(self.terms) == 1 and self.terms[0][0] is other.terms[0][0]:
            var, coef = self.terms[0]
            coef += other.terms[0][1]
            return Index(((var, coef),) if coef else (), self.offset + other.offset)
        total = dict(self.terms)
        for var, coef in other.terms:
            total[var] = total.get(var, 0) + coef
        return _make(total, self.offset + other.offset)

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return ZERO
        if factor == 1:
            return self
        return Index(tuple((v, c * factor) for v, c in self.terms), self.offset * factor)

    def bounds(self) -> tuple[int, int]:
        """The lowest and highest value it can take."""
        low = high = self.offset
        for var, coef in self.terms:
            if var.extent > 1:
                if coef > 0:
                    high += coef * (var.extent - 1)
                else:
                    low += coef * (var.extent - 1)
        return low, high

    def coefficient(self, var: Var) -> int:
        for v, c in self.terms:
            if v == var:
                return c
        return 0

    def __repr__(self) -> str:
        parts = [f"{c}*{v}" if c != 1 else f"{v}" for v, c in self.terms]
        if self.offset or not parts:
            parts.append(str(self.offset))
        return "+".join(parts)


def _make(total: dict[Var, int], offset: int) -> Index:
    """Normal form: zero terms dropped, q*n*(e//n) + q*(e%n) joined to q*e."""
    for var in [v for v in total if v.kind == "mod"] if len(total) > 1 else ():
        coef = total.get(var, 0)
        if not coef:
            continue
        inner, n = var.args
        twin = Var("div", (inner, n), 0)
        if total.get(twin) == coef * n:
            del total[var], total[twin]
            joined = Index((), offset)
            for v, c in total.items():
                if c:
                    joined = Index((*joined.terms, (v, c)), joined.offset)
            return _make({**dict(joined.terms)}, offset) + inner * coef
    terms = [(v, c) for v, c in total.items() if c]
    if len(terms) > 1:
        terms.sort(key=_order)
    return Index(tuple(terms), offset)


def _order(term: tuple[Var, int]) -> tuple[int, str]:
    return term[0].order, repr(term[0])


ZERO = Index((), 0)


def const(value: int) -> Index:
    return Index((), value)


def loop_var(name: str, extent: int, order: int = 0) -> Index:
    """A loop variable that runs from 0 to extent - 1 (a constant 0 where there is one round)."""
    if extent == 1:
        return ZERO
    return Index(((Var("loop", (name,), extent, order), 1),), 0)


def quotient(index: Index, n: int) -> Index:
    """index // n for n > 0 and index >= 0."""
    if n == 1:
        return index
    whole, rest = _split(index, n)
    low, high = rest.bounds()
    if 0 <= low and high < n:
        return whole
    coarse = _coarse(index, n)
    if coarse is not None:
        return quotient(coarse[0], n // coarse[1])
    if whole.terms and low >= 0:
        return whole + Index(((Var("div", (rest, n), high // n + 1, 50), 1),), 0)
    _, top = index.bounds()
    return Index(((Var("div", (index, n), top // n + 1, 50), 1),), 0)


def remainder(index: Index, n: int) -> Index:
    """index % n for n > 0 and index >= 0."""
    if n == 1:
        return ZERO
    whole, rest = _split(index, n)
    low, high = rest.bounds()
    if 0 <= low and high < n:
        return rest
    coarse = _coarse(index, n)
    if coarse is not None:
        upper, g, fine = coarse
        return remainder(upper, n // g) * g + fine
    if whole.terms and low >= 0:
        return Index(((Var("mod", (rest, n), n, 50), 1),), 0)
    return Index(((Var("mod", (index, n), n, 50), 1),), 0)


def _split(index: Index, n: int) -> tuple[Index, Index]:
    """(q, r) with index = q*n + r, q taking every part that is a visible multiple of n."""
    whole, rest = [], []
    for term in index.terms:
        coef = term[1]
        if coef % n == 0:
            whole.append((term[0], coef // n))
        else:
            rest.append(term)
    if not whole and 0 <= index.offset < n:
        return ZERO, index
    return (Index(tuple(whole), index.offset // n), Index(tuple(rest), index.offset % n))


def _coarse(index: Index, n: int) -> tuple[Index, int, Index] | None:
    """(u, g, r) with index = u*g + r, 0 <= r < g and g a divisor of n, for the largest such g that
    is more than 1: what of the index is finer than g then has no part in the division."""
    if len(index.terms) + (index.offset != 0) < 2 or index.bounds()[0] < 0:
        return None
    for g in sorted({gcd(coef, n) for _, coef in index.terms}, reverse=True):
        if g <= 1:
            return None
        if g == n:
            continue
        upper = Index(tuple([(v, c // g) for v, c in index.terms if c % g == 0]),
                      index.offset // g)
        fine = Index(tuple([t for t in index.terms if t[1] % g]), index.offset % g)
        low, high = fine.bounds()
        if low >= 0 and high < g and upper.bounds()[0] >= 0:
            return upper, g, fine
    return None


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous array."""
    strides = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def flatten(index: Sequence[Index], strides: Sequence[int], offset: int = 0) -> Index:
    """The position in memory (in elements) of an element."""
    total: dict[Var, int] = {}
    for i, stride in zip(index, strides, strict=True):
        if stride:
            for var, coef in i.terms:
                total[var] = total.get(var, 0) + coef * stride
            offset += i.offset * stride
    return _make(total, offset)


def unflatten(position: Index, shape: Sequence[int]) -> tuple[Index, ...]:
    """The index tuple of row-major `position`.

    Divides step by step, so that `flatten` finds quotient and remainder of the same value.
    """
    out = []
    for dim in range(len(shape) - 1, -1, -1):
        n = max(shape[dim], 1)
        out.append(position if dim == 0 and n > 1 else remainder(position, n))
        position = quotient(position, n)
    return tuple(reversed(out))


def variables(index: Index) -> set[Var]:
    """Every loop variable that it depends on, inside quotients and loads too."""
    found: set[Var] = set()
    stack: list[Any] = [index]
    while stack:
        item = stack.pop()
        if isinstance(item, Index):
            stack.extend(v for v, _ in item.terms)
        elif isinstance(item, Var):
            if item.kind == "loop":
                found.add(item)
            else:
                stack.extend(item.args)
        elif isinstance(item, tuple):
            stack.extend(item)
    return found
