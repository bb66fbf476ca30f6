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
    return Draft(f"OUT = {x}.to(F.{name}, copy=True).contiguous()", f"OUT = M.cast({x}, {name!r})", (x,),
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
    return Draft(f"OUT = {x}.cumsum({axis})", f"OUT = np.array(np.cumsum({x}, {axis}), order='C')", (x,))


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


# ---------------------------------------------------------------- views

def _key(b: Any, shape: tuple[int, ...]) -> str:
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


@op(5, smooth=True)
def sliced(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    key = _key(b, b.array(x).shape)
    return Draft(f"OUT = {x}[{key}]", f"OUT = {x}[{key}]", (x,), view=True)


@op(3, smooth=True)
def turned(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 1)
    if x is None:
        return None
    order = list(range(b.array(x).ndim))
    b.rng.shuffle(order)
    args = ", ".join(map(str, order))
    if b.rng.random() < 0.4 and len(order) == 2:
        return Draft(f"OUT = {x}.t()", f"OUT = {x}.T", (x,), view=True)
    return Draft(f"OUT = {x}.permute({args})", f"OUT = {x}.transpose({args})", (x,), view=True)


@op(2, smooth=True)
def viewed(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    n = b.array(x).size
    shapes = [(n,), (1, n), (n, 1)] + [(k, n // k) for k in (2, 3) if n % k == 0]
    shapes += [(2, n // 4, 2)] if n % 4 == 0 else []
    shape = b.rng.choice(shapes)
    return Draft(f"OUT = {x}.view({shape})", f"OUT = M.view({x}, {shape})", (x,), view=True)


@op(1, smooth=True)
def reshaped(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    return Draft(f"OUT = {x}.reshape(-1).clone()" if b.array(x).size else f"OUT = {x}.clone()",
                 f"OUT = {x}.reshape(-1).copy()" if b.array(x).size else f"OUT = {x}.copy()",
                 (x,), exact=True)


@op(1.5, smooth=True)
def sized(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim < 5)
    if x is None:
        return None
    at = b.rng.randint(0, b.array(x).ndim)
    return Draft(f"OUT = {x}.unsqueeze({at})", f"OUT = np.expand_dims({x}, {at})", (x,), view=True)


@op(1.5, smooth=True)
def expanded(b: Any) -> Draft | None:
    x = b.pick(lambda a: 1 in a.shape or a.ndim < 3)
    if x is None:
        return None
    shape = tuple(b.rng.choice([2, 3]) if n == 1 else n for n in b.array(x).shape)
    if b.rng.random() < 0.4:
        shape = (2, *shape)
    return Draft(f"OUT = {x}.expand({shape})", f"OUT = M.expand({x}, {shape})", (x,), view=True)


@op(0.7, smooth=True)
def diagonal(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 1)
    if x is None:
        return None
    k = b.rng.choice([0, 0, 1, -1])
    return Draft(f"OUT = {x}.diagonal({k})",
                 f"OUT = {x}.diagonal({k}); OUT.flags.writeable = True", (x,), view=True)


@op(0.7, smooth=True)
def strided(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.size >= 4 and a.flags.c_contiguous)
    if x is None:
        return None
    n = b.array(x).size
    shape, strides = b.rng.choice([((2, 2), (1, 2)), ((2,), (3,)), ((n - 1, 2), (1, 1)),
                                   ((2, n // 2), (n // 2, 1))])
    if len(shape) == 2 and strides == (1, 1):
        return Draft(f"OUT = {x}.as_strided({shape}, {strides}, {x}.storage_offset()).clone()",
                     f"OUT = M.strided({x}, {shape}, {strides}).copy()", (x,), exact=True)
    return Draft(f"OUT = {x}.as_strided({shape}, {strides}, {x}.storage_offset())",
                 f"OUT = M.strided({x}, {shape}, {strides})", (x,), view=True)


@op(0.6, smooth=True)
def parts(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0 and a.shape[0] >= 2)
    if x is None:
        return None
    n = b.array(x).shape[0]
    k = b.rng.randrange(n)
    if b.rng.random() < 0.5:
        return Draft(f"OUT = {x}.unbind(0)[{k}]", f"OUT = {x}[{k}, ...]", (x,), view=True)
    return Draft(f"OUT = {x}.split([1, {n - 1}])[1]", f"OUT = {x}[1:]", (x,), view=True)


@op(0.5)
def complex_parts(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.kind == "c")
    if x is None:
        return None
    name = b.rng.choice(["real", "imag"])
    return Draft(f"OUT = {x}.{name}", f"OUT = {x}.{name}", (x,), view=True)


@op(0.5)
def bits_seen(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype in (np.dtype("f4"), np.dtype("f8")) and a.flags.c_contiguous)
    if x is None or not b.exact(x) or x in b.leaves and b.leaves[x][3] or b.grad:
        return None
    name = "int32" if b.array(x).dtype == np.dtype("f4") else "int64"
    return Draft(f"OUT = ({x}.view(F.{name}) >> 20) & 63",
                 f"OUT = np.array(({x}.view({name!r}) >> 20) & 63)", (x,), exact_only=True)


@op(0.7)
def detached(b: Any) -> Draft | None:
    x = b.pick()
    if x is None or (b.grad and x in b.leaves and b.leaves[x][3]):
        return None
    if b.grad:      # what is written through a detached alias has no gradient, and FD sees one
        return Draft(f"OUT = {x}.detach().clone()", f"OUT = np.array({x})", (x,), exact=True)
    return Draft(f"OUT = {x}.detach()", f"OUT = {x}[...]", (x,), view=True)


# ---------------------------------------------------------------- copies that move elements

@op(0.7, smooth=True)
def cloned(b: Any) -> Draft | None:
    x = b.pick()
    return x and Draft(f"OUT = {x}.clone(memory_format=F.contiguous_format)",
                       f"OUT = np.array({x}, order='C')", (x,), exact=True)


@op(1, smooth=True)
def moved(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0)
    if x is None:
        return None
    n, axis = b.array(x).ndim, axis_of(b, x)
    text = b.rng.choice([
        (f"{x}.flip({axis})", f"np.array(np.flip({x}, {axis}), order='C')"),
        (f"{x}.roll(1, {axis})", f"np.array(np.roll({x}, 1, {axis}), order='C')"),
        (f"{x}.tril()", f"M.trig({x}, 0, True)") if n > 1 else (f"{x}.flip(0)",
                                                                f"np.array({x}[::-1])"),
        (f"F.nn.functional.pad({x}, (1, 2))",
         f"np.array(np.pad({x}, [(0, 0)] * {n - 1} + [(1, 2)]), order='C')"),
        (f"{x}.repeat_interleave(2, {axis})", f"np.array(np.repeat({x}, 2, {axis}), order='C')")])
    return Draft(f"OUT = {text[0]}", f"OUT = {text[1]}", (x,), exact=True)


@op(1.5, smooth=True)
def joined(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0)
    if x is None:
        return None
    a = b.array(x)
    y = b.pick(lambda c: c.shape == a.shape and c.dtype == a.dtype)
    name, axis = b.rng.choice([("cat", "concatenate"), ("stack", "stack")]), axis_of(b, x)
    return Draft(f"OUT = F.{name[0]}([{x}, {y}, {x}], {axis})",
                 f"OUT = np.array(np.{name[1]}([{x}, {y}, {x}], {axis}), order='C')", (x, y),
                 exact=True)


def _numbers(b: Any, n: int, count: int) -> list[int]:
    return [b.rng.randrange(n) for _ in range(count)]


@op(1.5, smooth=True)
def gathered(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0 and a.size > 0)
    if x is None:
        return None
    n = b.array(x).shape[0]
    index = _numbers(b, n, b.rng.randint(1, 4))
    r = b.rng.random()
    if r < 0.3:
        return Draft(f"OUT = {x}[{index}]", f"OUT = np.array({x}[{index}], order='C')", (x,),
                     exact=True)
    if r < 0.6:
        return Draft(f"OUT = {x}.index_select(0, F.tensor({index}))",
                     f"OUT = np.array({x}[{index}], order='C')", (x,), exact=True)
    i = b.pick(lambda a: a.dtype == np.dtype("i8") and a.size > 0)
    if i is None or b.array(i).ndim + b.array(x).ndim > 5:
        return None
    if not b.array(i).ndim:         # PyTorch takes it as a number, so the result is a view
        return Draft(f"OUT = {x}[{i} % {n}]", f"OUT = {x}[int({i}) % {n}, ...]", (x, i), view=True)
    return Draft(f"OUT = {x}[{i} % {n}]", f"OUT = np.array({x}[{i} % {n}], order='C')", (x, i),
                 exact=True)


@op(0.7, smooth=True)
def along(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0 and a.size > 0)
    if x is None:
        return None
    a = b.array(x)
    i = b.pick(lambda c: c.dtype == np.dtype("i8") and c.shape == a.shape)
    if i is None:
        i = b.leaf("int64", a.shape)
    axis = b.rng.randrange(a.ndim)
    n = a.shape[axis]
    return Draft(f"OUT = {x}.gather({axis}, {i} % {n})",
                 f"OUT = np.array(np.take_along_axis({x}, {i} % {n}, {axis}), order='C')", (x, i), exact=True)


@op(0.7)
def masked(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    a = b.array(x)
    m = b.pick(lambda c: c.dtype.kind == "b" and c.shape == a.shape)
    if m is None or not a.ndim:
        return None
    b.fixed = True
    return Draft(f"OUT = {x}[{m}]", f"OUT = np.array({x}[{m}])", (x, m), exact=True)


@op(1, smooth=True)
def scattered(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0 and a.size > 0 and numbers(a))
    if x is None:
        return None
    a = b.array(x)
    y = b.pick(lambda c: c.dtype == a.dtype and c.shape == a.shape)
    i = b.pick(lambda c: c.dtype == np.dtype("i8") and c.shape == a.shape)
    if i is None:
        i = b.leaf("int64", a.shape)
    axis = b.rng.randrange(a.ndim)
    n = a.shape[axis]
    add = b.rng.random() < 0.6 or b.grad
    name = "scatter_add" if add else "scatter"
    return Draft(f"OUT = {x}.{name}({axis}, {i} % {n}, {y})",
                 f"OUT = M.scatter({x}, {axis}, {i} % {n}, {y}, {add})", (x, i, y), exact=not add)


# ---------------------------------------------------------------- writes

@op(4, smooth=True)
def assigned(b: Any) -> Draft | None:
    t = target(b, lambda a: a.ndim > 0)
    if t is None:
        return None
    key = _key(b, b.array(t).shape)
    if "None" in key:
        return None
    shape = b.array(t)[eval(f"np.s_[{key}]", {"np": np})].shape
    y = into(b, shape, lambda c: "bifc".index(kind(c.dtype))
             <= "bifc".index(kind(b.array(t).dtype)))
    if y is None or b.rng.random() < 0.15:
        number = b.rng.choice([0, 1, 2])
        return Draft(f"{t}[{key}] = {number}", f"M.put_at({t}, np.s_[{key}], {number})", (t,),
                     target=t, exact=True, new=False)
    b.overlaps = b.overlaps or bool(np.shares_memory(b.array(t), b.array(y)))
    return Draft(f"{t}[{key}] = {y}", f"M.put_at({t}, np.s_[{key}], {y})", (t, y), target=t,
                 exact=True, new=False)


@op(3, smooth=True)
def augmented(b: Any) -> Draft | None:
    t = target(b, numbers)
    if t is None:
        return None
    a = b.array(t)
    sign, fn = b.rng.choice([("+=", "np.add"), ("-=", "np.subtract"), ("*=", "np.multiply")])
    y = into(b, a.shape, lambda c: numbers(c) and "bifc".index(kind(c.dtype))
             <= "bifc".index(kind(a.dtype)))
    if y is None:
        return None
    b.overlaps = b.overlaps or bool(np.shares_memory(a, b.array(y)))
    if a.ndim and b.rng.random() < 0.5:
        key = _key(b, a.shape)
        if "None" in key:
            return None
        part = a[eval(f"np.s_[{key}]", {"np": np})]
        y = into(b, part.shape, lambda c: c.dtype == a.dtype)
        if y is None:
            return None
        b.overlaps = b.overlaps or bool(np.shares_memory(a, b.array(y)))
        return Draft(f"{t}[{key}] {sign} {y}",
                     f"M.put_at({t}, np.s_[{key}], M.ew({fn}, {t}[{key}], {y}))", (t, y), target=t,
                     new=False)
    return Draft(f"{t} {sign} {y}", f"M.put({t}, M.ew({fn}, {t}, {y}))", (t, y), target=t,
                 new=False)


@op(1.5, smooth=True)
def in_place(b: Any) -> Draft | None:
    t = target(b, isf if not b.rng.random() < 0.3 else numbers)
    if t is None:
        return None
    y = into(b, b.array(t).shape, lambda c: "bifc".index(kind(c.dtype))
             <= "bifc".index(kind(b.array(t).dtype)))
    forms = [(f"{t}.zero_()", f"M.put({t}, 0)", True), (f"{t}.fill_(2)", f"M.put({t}, 2)", True),
             (f"{t}.neg_()", f"M.put({t}, -{t})", True)]
    if y is not None:
        b.overlaps = b.overlaps or bool(np.shares_memory(b.array(t), b.array(y)))
        forms.append((f"{t}.copy_({y})", f"M.put({t}, np.array({y}))", True))
    if isf(b.array(t)):
        forms += [(f"{t}.sin_()", f"M.put({t}, M.ew(np.sin, {t}))", False),
                  (f"{t}.tanh_()", f"M.put({t}, M.ew(np.tanh, {t}))", False),
                  (f"{t}.mul_(0.5)", f"M.put({t}, M.ew(np.multiply, {t}, 0.5))", False)]
    code, meaning, exact = b.rng.choice(forms)
    uses = (t, y) if y is not None and "copy_" in code else (t,)
    return Draft(code, meaning, uses, target=t, exact=exact, new=False)


@op(1)
def masked_write(b: Any) -> Draft | None:
    t = target(b, numbers)
    if t is None:
        return None
    m = into(b, b.array(t).shape, lambda c: c.dtype.kind == "b")
    if m is None:
        return None
    if b.array(m).shape == b.array(t).shape and b.array(t).ndim and b.rng.random() < 0.4:
        return Draft(f"{t}[{m}] = 1", f"M.put_at({t}, {m}, 1)", (t, m), target=t, exact=True,
                     new=False)
    return Draft(f"{t}.masked_fill_({m}, 2)", f"M.put({t}, np.where({m}, 2, {t}))", (t, m),
                 target=t, exact=True, new=False)


@op(1.2, smooth=True)
def indexed_write(b: Any) -> Draft | None:
    t = target(b, lambda a: numbers(a) and a.ndim > 0 and a.size > 0)
    if t is None:
        return None
    a = b.array(t)
    count = b.rng.randint(1, 4)
    index = _numbers(b, a.shape[0], count)
    y = into(b, (count, *a.shape[1:]), lambda c: c.dtype == a.dtype)
    if y is None:
        return None
    if b.rng.random() < 0.5 and len(set(index)) == count:
        b.overlaps = b.overlaps or bool(np.shares_memory(a, b.array(y)))
        return Draft(f"{t}[{index}] = {y}", f"M.put_at({t}, {index}, {y})", (t, y), target=t,
                     exact=True, new=False)
    wide = f"{y}.expand({(count, *a.shape[1:])}).clone()"
    return Draft(f"{t}.index_add_(0, F.tensor({index}), {wide})",
                 f"M.put({t}, M.add_at({t}, {index}, {y}))", (t, y), target=t, new=False)


# ---------------------------------------------------------------- asking for values

@op(1.2, smooth=True)
def asked(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    how = b.rng.choice(["{x}.tolist()", "str({x})", "{x}.detach().numpy().sum()"])
    if b.array(x).dtype.name == "bfloat16":
        how = "{x}.tolist()"
    return Draft(how.format(x=x), "None", (x,), new=False)


@op(0.6)
def held(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.name != "bfloat16")
    if x is None or not b.exact(x):
        return None
    return Draft(f"held.append({x}.detach().numpy())", f"held.append({x})", (x,), new=False)
