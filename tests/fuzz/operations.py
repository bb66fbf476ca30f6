"""The fuzzer's operations: each draws one line that fits the graph so far, or None.

A `Draft` says the line twice; OUT stands for the name it makes.  `view` marks results that alias,
`target` what is written to, `exact` that no rounding happens, `exact_only` that the operation is
discontinuous and must be given exact values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz.model import DTYPES, NAMES, kind

__all__ = ["Draft", "OPERATIONS", "SMOOTH"]


class Draft(NamedTuple):
    code: str
    meaning: str
    uses: tuple[str, ...]
    target: str = ""
    view: bool = False
    exact: bool = False
    exact_only: bool = False
    new: bool = True


OPERATIONS: dict[Callable[[Any], Draft | None], float] = {}
SMOOTH: dict[Callable[[Any], Draft | None], float] = {}


def op(weight: float = 1.0, smooth: bool = False) -> Any:
    def register(fn: Any) -> Any:
        OPERATIONS[fn] = weight
        if smooth:
            SMOOTH[fn] = weight
        return fn
    return register


def isf(a: Any) -> bool:
    return kind(a.dtype) == "f"


def real(a: Any) -> bool:
    return a.dtype.kind != "c"


def numbers(a: Any) -> bool:
    return a.dtype.kind != "b"


def integers(a: Any) -> bool:
    return kind(a.dtype) == "i"


def fit(b: Any, name: str, want: Any = lambda a: True) -> str | None:
    """A name that broadcasts with `name`."""
    shape = b.array(name).shape

    def suits(a: Any) -> bool:
        try:
            np.broadcast_shapes(a.shape, shape)
        except ValueError:
            return False
        return want(a)
    return b.pick(suits)


def into(b: Any, shape: tuple[int, ...], want: Any = lambda a: True) -> str | None:
    """A name that broadcasts to `shape`."""
    def suits(a: Any) -> bool:
        try:
            return np.broadcast_shapes(a.shape, shape) == shape and want(a)
        except ValueError:
            return False
    return b.pick(suits)


def target(b: Any, want: Any = lambda a: True) -> str | None:
    names = [n for n in b.names() if b.writable(n) and want(b.array(n))]
    return b.rng.choice(names) if names else None


def basic_key(b: Any, shape: tuple[int, ...]) -> str:
    """A basic index as source: integers, slices with positive steps, None."""
    parts = []
    for n in shape[:b.rng.randint(1, max(len(shape), 1))]:
        r = b.rng.random()
        if r < 0.25 and n:
            parts.append(str(b.rng.randrange(-n, n)))
        elif r < 0.75:
            low, high = sorted((b.rng.randint(0, n), b.rng.randint(0, n)))
            if low == high and b.rng.random() < 0.8:
                low, high = 0, n
            parts.append(f"{low}:{high}" + b.rng.choice(["", "", ":2"]))
        else:
            parts.append(":")
    if b.rng.random() < 0.1:
        parts.insert(b.rng.randint(0, len(parts)), "None")
    return ", ".join([*parts, "..."])


def numbers_below(b: Any, n: int, count: int) -> list[int]:
    return [b.rng.randrange(n) for _ in range(count)]


# ---------------------------------------------------------------- elementwise

_UNARY = [("sin", "np.sin"), ("cos", "np.cos"), ("tanh", "np.tanh"), ("sigmoid", "M.sigmoid"),
          ("exp", "np.exp"), ("erf", "M.erf"), ("expm1", "np.expm1"), ("atan", "np.arctan"),
          ("asinh", "np.arcsinh")]


@op(3, smooth=True)
def unary(b: Any) -> Draft | None:
    x = b.pick(real)
    if x is None:
        return None
    name, fn = b.rng.choice(_UNARY)
    return Draft(f"OUT = {x}.{name}()", f"OUT = M.fl({fn}, {x})", (x,))


@op(1, smooth=True)
def guarded(b: Any) -> Draft | None:
    x = b.pick(real if not b.smooth else isf)
    if x is None:
        return None
    name, fn = b.rng.choice([("sqrt", "np.sqrt"), ("log", "np.log"), ("rsqrt", "1/np.sqrt"),
                             ("reciprocal", "np.reciprocal"), ("log1p", "np.log1p")])
    fn = "lambda a: 1 / np.sqrt(a)" if name == "rsqrt" else fn
    fn = "lambda a: 1 / a" if name == "reciprocal" else fn
    return Draft(f"OUT = ({x} * {x} + 1.5).{name}()",
                 f"OUT = M.fl({fn}, M.ew(np.add, M.ew(np.multiply, {x}, {x}), 1.5))", (x,))


@op(1, smooth=True)
def simple(b: Any) -> Draft | None:
    name, fn = b.rng.choice([("neg", "np.negative"), ("square", "np.square")]
                            + [("abs", "np.abs")] * (not b.smooth))
    x = b.pick(lambda a: numbers(a) and (real(a) or name != "abs"))
    if x is None:
        return None
    return Draft(f"OUT = {x}.{name}()", f"OUT = M.ew({fn}, {x})", (x,), exact=name != "square")


@op(1)
def jumps(b: Any) -> Draft | None:
    x = b.pick(isf)
    if x is None:
        return None
    name, fn = b.rng.choice([("floor", "np.floor"), ("ceil", "np.ceil"), ("round", "np.rint"),
                             ("trunc", "np.trunc"), ("sign", "np.sign"),
                             ("relu", "lambda a: np.maximum(a, 0)")])
    call = f"F.nn.functional.relu({x})" if name == "relu" else f"{x}.{name}()"
    return Draft(f"OUT = {call}", f"OUT = M.ew({fn}, {x})", (x,), exact=True, exact_only=True)


@op(6, smooth=True)
def binary(b: Any) -> Draft | None:
    x = b.pick(numbers)
    y = x and fit(b, x, numbers)
    if y is None:
        return None
    sign, fn = b.rng.choice([("+", "np.add"), ("-", "np.subtract"), ("*", "np.multiply")])
    return Draft(f"OUT = {x} {sign} {y}", f"OUT = M.ew({fn}, {x}, {y})", (x, y))


@op(2, smooth=True)
def with_number(b: Any) -> Draft | None:
    x = b.pick(numbers)
    if x is None:
        return None
    sign, fn = b.rng.choice([("+", "np.add"), ("-", "np.subtract"), ("*", "np.multiply")])
    number = b.rng.choice([2, -1, 3] if not b.smooth else [0.5, -1.5])
    if b.rng.random() < 0.5:
        number = b.rng.choice([0.5, -1.5, 0.25])
    if b.rng.random() < 0.3:
        return Draft(f"OUT = {number} {sign} {x}", f"OUT = M.ew({fn}, {number}, {x})", (x,))
    return Draft(f"OUT = {x} {sign} {number}", f"OUT = M.ew({fn}, {x}, {number})", (x,))


@op(1, smooth=True)
def quotient(b: Any) -> Draft | None:
    x = b.pick(real)
    y = x and fit(b, x, isf)
    if y is None:
        return None
    return Draft(f"OUT = {x} / ({y} * {y} + 1)",
                 f"OUT = M.fl(np.divide, {x}, M.ew(np.add, M.ew(np.multiply, {y}, {y}), 1))",
                 (x, y))


@op(1)
def pairs(b: Any) -> Draft | None:
    x = b.pick(lambda a: numbers(a) and real(a))
    y = x and fit(b, x, lambda a: numbers(a) and real(a))
    if y is None:
        return None
    name, fn = b.rng.choice([("maximum", "np.maximum"), ("minimum", "np.minimum"),
                             ("fmax", "np.fmax")])
    return Draft(f"OUT = F.{name}({x}, {y})", f"OUT = M.ew({fn}, {x}, {y})", (x, y), exact=True,
                 exact_only=True)


@op(0.7)
def modulo(b: Any) -> Draft | None:
    x = b.pick(lambda a: numbers(a) and real(a))
    if x is None:
        return None
    name, fn = b.rng.choice([("remainder", "np.remainder"), ("fmod", "np.fmod"),
                             ("floor_divide", "np.floor_divide")])
    number = b.rng.choice([2, 3, 5])
    return Draft(f"OUT = F.{name}({x}, {number})", f"OUT = M.ew({fn}, {x}, {number})", (x,),
                 exact=True, exact_only=True)


@op(1.5)
def compare(b: Any) -> Draft | None:
    x = b.pick(real)
    y = x and fit(b, x, real)
    if y is None:
        return None
    sign, fn = b.rng.choice([("<", "np.less"), ("<=", "np.less_equal"), (">", "np.greater"),
                             ("==", "np.equal"), ("!=", "np.not_equal")])
    return Draft(f"OUT = {x} {sign} {y}", f"OUT = M.cmp({fn}, {x}, {y})", (x, y), exact_only=True)


@op(0.7)
def bits(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.kind in "bui")
    y = x and fit(b, x, lambda a: a.dtype == b.array(x).dtype)
    if y is None:
        return None
    sign, fn = b.rng.choice([("&", "np.bitwise_and"), ("|", "np.bitwise_or"),
                             ("^", "np.bitwise_xor")])
    return Draft(f"OUT = {x} {sign} {y}", f"OUT = M.ew({fn}, {x}, {y})", (x, y))


@op(0.5)
def logic(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.kind == "b")
    if x is None:
        return None
    return Draft(f"OUT = ~{x}", f"OUT = np.array(~{x}, order='C')", (x,))


@op(1.5, smooth=True)
def where(b: Any) -> Draft | None:
    x = b.pick(lambda a: real(a))
    y = x and fit(b, x, lambda a: real(a))
    if y is None:
        return None
    c = fit(b, x, lambda a: a.dtype.kind == "b")
    if c is None or b.rng.random() < 0.1:
        c = b.leaf("bool", b.array(x).shape)
    shape = np.broadcast_shapes(b.array(x).shape, b.array(y).shape)
    if into(b, shape, lambda a: a.shape == b.array(c).shape) is None:
        return None
    return Draft(f"OUT = F.where({c}, {x}, {y})", f"OUT = M.where({c}, {x}, {y})", (c, x, y),
                 exact=True)


@op(1.5)
def convert(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    name = b.rng.choice([*DTYPES])
    a = b.array(x)
    if a.dtype.kind == "c" and name != "complex64":
        return None
    falls = "bifc".index(kind(a.dtype)) > "bifc".index(kind(DTYPES[name]))
    if name == "uint8" and a.size and a.dtype.kind != "b" and (a < 0).any():
        return None
    return Draft(f"OUT = {x}.to(F.{name}, copy=True).contiguous()",
                 f"OUT = M.cast({x}, {name!r})", (x,),
                 exact_only=falls)


@op(0.5, smooth=True)
def clamp(b: Any) -> Draft | None:
    x = b.pick(lambda a: numbers(a) and real(a))
    if x is None:
        return None
    a = b.array(x)
    low, high = (-1.1, 1.3) if isf(a) else (0 if a.dtype.kind == "u" else -1, 2)
    return Draft(f"OUT = {x}.clamp({low}, {high})",
                 f"OUT = M.ew(lambda a: np.clip(a, {low}, {high}), {x})", (x,))


# ---------------------------------------------------------------- reductions and products

def axis_of(b: Any, x: str) -> int | None:
    n = b.array(x).ndim
    return b.rng.randrange(-n, n) if n else None


@op(2, smooth=True)
def sums(b: Any) -> Draft | None:
    x = b.pick()
    axis = x and axis_of(b, x)
    if x is None:
        return None
    keep = b.rng.random() < 0.5
    if axis is None or b.rng.random() < 0.2:
        return Draft(f"OUT = {x}.sum()", f"OUT = M.total({x}, None)", (x,))
    if isf(b.array(x)) and b.rng.random() < 0.3:
        return Draft(f"OUT = {x}.mean({axis}, keepdim={keep})",
                     f"OUT = M.reduce(np.mean, {x}, {axis}, {keep})", (x,))
    return Draft(f"OUT = {x}.sum({axis}, keepdim={keep})",
                 f"OUT = M.total({x}, {axis}, {keep})", (x,))


@op(1)
def extremes(b: Any) -> Draft | None:
    x = b.pick(lambda a: real(a) and numbers(a) and a.ndim > 0 and a.size > 0)
    if x is None:
        return None
    axis, name = axis_of(b, x), b.rng.choice(["amax", "amin"])
    return Draft(f"OUT = {x}.{name}({axis})", f"OUT = M.reduce(np.{name}, {x}, {axis})", (x,),
                 exact=True, exact_only=True)


@op(0.7)
def positions(b: Any) -> Draft | None:
    x = b.pick(lambda a: real(a) and numbers(a) and a.ndim > 0 and a.size > 0)
    if x is None:
        return None
    axis, name = axis_of(b, x), b.rng.choice(["argmax", "argmin"])
    return Draft(f"OUT = {x}.{name}({axis})", f"OUT = np.array(np.{name}({x}, {axis}))", (x,),
                 exact_only=True)


@op(0.5)
def any_all(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.kind == "b" and a.ndim > 0)
    if x is None:
        return None
    axis, name = axis_of(b, x), b.rng.choice(["any", "all"])
    return Draft(f"OUT = {x}.{name}({axis})", f"OUT = np.array({x}.{name}({axis}))", (x,))


@op(1, smooth=True)
def scans(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.kind in "fi" and a.dtype != np.dtype("f2") and a.ndim > 0
               and a.dtype != np.dtype("i4"))
    if x is None:
        return None
    axis = axis_of(b, x)
    return Draft(f"OUT = {x}.cumsum({axis})",
                 f"OUT = np.array(np.cumsum({x}, {axis}), order='C')", (x,))


@op(1, smooth=True)
def softmax(b: Any) -> Draft | None:
    x = b.pick(lambda a: isf(a) and a.ndim > 0 and a.size > 0)
    if x is None:
        return None
    axis = axis_of(b, x)
    return Draft(f"OUT = {x}.softmax({axis})", f"OUT = M.softmax({x}, {axis})", (x,))


@op(2.5, smooth=True)
def matmul(b: Any) -> Draft | None:
    x = b.pick(lambda a: numbers(a) and a.ndim > 0)
    if x is None:
        return None
    a = b.array(x)

    def suits(c: Any) -> bool:
        if c.dtype != a.dtype or c.ndim == 0:
            return False
        return bool(c.shape[-2 if c.ndim > 1 else 0] == a.shape[-1])
    y = b.pick(suits)
    if y is None and a.dtype == np.dtype("c16"):
        return None
    if y is None:
        y = b.leaf(NAMES[a.dtype], (a.shape[-1], b.rng.randint(1, 3)))
    return Draft(f"OUT = {x} @ {y}", f"OUT = M.matmul({x}, {y})", (x, y))
