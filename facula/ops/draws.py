"""Random numbers from a generator's stream, as operations of the graph.

A draw hands the generator's key and position to the `philox` primitive as runtime scalars, takes
as many blocks of the stream as it needs and moves the position on.  Programs are so found again
whatever the seed, and element i depends on nothing but seed, position and i.
"""

from __future__ import annotations

import math
from typing import Any

from facula import dtypes as d
from facula.dtype import DType, int64
from facula.errors import DTypeError, VmapError, with_line
from facula.generator import Generator, default_generator
from facula.graph.record import _local
from facula.ops.define import composite
from facula.ops.promote import cast, expand_to
from facula.tensor import Tensor, make, prim, scalar

__all__ = ["take", "copies", "once", "compute_dtype", "uniform_numbers", "normal_numbers",
           "bernoulli_mask", "integer_numbers", "inverse_numbers", "exponentiated",
           "arrival_order", "rejection_numbers"]

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """The same 64 bits as an int64."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def copies() -> int:
    """How many examples of mapped functions (`vmap`) every number drawn now is drawn for."""
    rec: Any = _local.rec
    count = 1
    while rec.outer is not None:
        count *= rec.copies()
        rec = rec.outer
    return count


def once() -> None:
    """Refuse numbers that are not drawn in the graph where each example is to have its own."""
    if copies() > 1:
        raise VmapError(with_line(
            "vmap: this random function computes its numbers before the operations that read "
            "them, and cannot draw different ones for each example. Use randomness='same', or "
            "draw them outside of the mapped function"))


def take(generator: Generator | None, words: int) -> tuple[Tensor, Tensor]:
    """Key and position of the next `words` numbers of 32 bits, as runtime scalars.

    Called outside of memoised operations, whose bodies would keep the first position for ever.
    """
    if _local.rec.depth:
        raise RuntimeError("internal: random numbers are drawn before a memoised operation and "
                           "passed to it")
    if generator is None:
        generator = default_generator
    elif not isinstance(generator, Generator):
        raise TypeError(f"generator must be a facula.Generator, not {type(generator).__name__}")
    words *= copies()
    tape = _local.rec.tape
    if tape is not None:
        _local.rec.tape = None
    key, position = generator._advance(words)
    pair = scalar(_signed(key), int64), scalar(_signed(position), int64)
    if tape is not None:
        _local.rec.tape = tape
        tape.draw(generator, words, pair[0]._node, pair[1]._node)
    return pair


def _full(value: Any, shape: tuple[int, ...], dtype: DType) -> Tensor:
    return prim("full", attrs=(value,), shape=shape, dtype=dtype)


def _times(t: Tensor, value: float) -> Tensor:
    return prim("mul", t, _full(value, t._node.spec.shape, t._node.spec.dtype))


def _plus(t: Tensor, value: float) -> Tensor:
    return prim("add", t, _full(value, t._node.spec.shape, t._node.spec.dtype))


def _shifted(words: Tensor, bits: int) -> Tensor:
    """The high bits of unsigned numbers, as int32: converting those to floating is one step."""
    s = words._node.spec
    high = prim("shift_right", words, _full(bits, s.shape, s.dtype))
    return prim("cast", high, dtype=d.int32)


def _words(key: Tensor, at: Tensor, shape: tuple[int, ...]) -> Tensor:
    return prim("philox", key, at, shape=shape, dtype=d.uint32)


def _parts(key: Tensor, at: Tensor, count: int, shape: tuple[int, ...]) -> list[Tensor]:
    """`count` independent tensors of uint32 words."""
    words = _words(key, at, (count, *shape))
    zeros, ones = (0,) * len(shape), (1,) * len(shape)
    return [prim("reshape", prim("slice", words, attrs=((k, *zeros), (1, *ones)),
                                 shape=(1, *shape)), shape=shape) for k in range(count)]


def _double(high: Tensor, low: Tensor) -> Tensor:
    """53 random bits as a float64 in [0, 1)."""
    a = _times(prim("cast", _shifted(high, 5), dtype=d.float64), 67108864.0)
    b = prim("cast", _shifted(low, 6), dtype=d.float64)
    return _times(prim("add", a, b), 2.0 ** -53)


_BITS = {"float16": 11, "bfloat16": 8, "float32": 24}


def _unit_words(numel: int, dtype: DType) -> int:
    """How many words `_unit` takes."""
    return 2 * numel if dtype is d.float64 else numel


def _unit(key: Tensor, at: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Uniform in [0, 1), as many bits as the dtype holds; 16-bit ones come as float32."""
    if dtype is d.float64:
        return _double(*_parts(key, at, 2, shape))
    bits = _BITS[dtype.name]
    whole = prim("cast", _shifted(_words(key, at, shape), 32 - bits), dtype=d.float32)
    return _times(whole, 2.0 ** -bits)


def compute_dtype(dtype: DType) -> DType:
    """The dtype that a distribution of `dtype` is computed in."""
    return d.float64 if dtype is d.float64 else d.float32


def _bell(key: Tensor, at: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Standard normal by Box and Muller, "A note on the generation of random normal deviates"
    (1958): sqrt(-2 log u) cos(2 pi v)."""
    if dtype is d.float64:
        a, b, c, e = _parts(key, at, 4, shape)
        u = _plus(_times(_double(a, b), -1.0), 1.0)
        v = _double(c, e)
    else:
        a, b = _parts(key, at, 2, shape)
        # All 32 bits: what is near 0, the tails, is told apart finely.
        u = _times(_plus(prim("cast", a, dtype=d.float32), 0.5), 2.0 ** -32)
        v = _times(prim("cast", _shifted(b, 8), dtype=d.float32), 2.0 ** -24)
    radius = prim("sqrt", _times(prim("log", u), -2.0))
    return prim("mul", radius, prim("cos", _times(v, 2 * math.pi)))


def _bell_words(numel: int, dtype: DType) -> int:
    return (4 if dtype is d.float64 else 2) * numel


def _affine(x: Tensor, scale: Tensor | None, shift: Tensor | None, dtype: DType) -> Tensor:
    shape = x._node.spec.shape
    if scale is not None:
        x = prim("mul", x, expand_to(scale, shape))
    if shift is not None:
        x = prim("add", x, expand_to(shift, shape))
    return cast(x, dtype)


@composite
def _uniform(key: Tensor, at: Tensor, scale: Tensor | None, shift: Tensor | None,
             shape: tuple[int, ...], dtype: DType) -> Tensor:
    return _affine(_unit(key, at, shape, dtype), scale, shift, dtype)


@composite
def _normal(key: Tensor, at: Tensor, scale: Tensor | None, shift: Tensor | None,
            shape: tuple[int, ...], dtype: DType) -> Tensor:
    return _affine(_bell(key, at, shape, dtype), scale, shift, dtype)


@composite
def _complex(pair: Tensor, factor: float, dtype: DType) -> Tensor:
    """A tensor [2, ...] of real and imaginary parts as a complex one."""
    shape = pair._node.spec.shape[1:]
    zeros, ones = (0,) * len(shape), (1,) * len(shape)
    parts = [prim("reshape", prim("slice", pair, attrs=((k, *zeros), (1, *ones)),
                                  shape=(1, *shape)), shape=shape) for k in (0, 1)]
    return prim("complex", *(_times(p, factor) for p in parts))


def _numel(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def uniform_numbers(shape: tuple[int, ...], dtype: DType, low: float = 0.0, high: float = 1.0,
                    generator: Generator | None = None) -> Tensor:
    """Uniform in [low, high) in a floating or complex dtype."""
    if dtype.kind == "c":
        real = dtype.to_real()
        return _complex(uniform_numbers((2, *shape), real, low, high, generator), 1.0, dtype)
    if dtype.kind != "f":
        raise DTypeError(f"random floating numbers cannot be drawn in {dtype.name}")
    key, at = take(generator, _unit_words(_numel(shape), dtype))
    if low == 0 and high == 1:
        return _uniform(key, at, None, None, shape, dtype)
    wide = compute_dtype(dtype)
    return _uniform(key, at, scalar(float(high) - float(low), wide), scalar(float(low), wide),
                    shape, dtype)


def normal_numbers(shape: tuple[int, ...], dtype: DType, mean: float = 0.0, std: float = 1.0,
                   generator: Generator | None = None) -> Tensor:
    """Normal with the given mean and standard deviation, in a floating or complex dtype.

    The parts of complex numbers have variance std**2 / 2 each.
    """
    if dtype.kind == "c":
        real = dtype.to_real()
        pair = normal_numbers((2, *shape), real, 0.0, std, generator)
        out = _complex(pair, math.sqrt(0.5), dtype)
        return out if mean == 0 else out + mean              # type: ignore[operator]
    if dtype.kind != "f":
        raise DTypeError(f"random floating numbers cannot be drawn in {dtype.name}")
    key, at = take(generator, _bell_words(_numel(shape), dtype))
    if mean == 0 and std == 1:
        return _normal(key, at, None, None, shape, dtype)
    wide = compute_dtype(dtype)
    return _normal(key, at, scalar(float(std), wide), scalar(float(mean), wide), shape, dtype)


@composite
def _below(key: Tensor, at: Tensor, p: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    return prim("lt", _unit(key, at, shape, dtype), expand_to(p, shape))


def bernoulli_mask(shape: tuple[int, ...], p: Any, generator: Generator | None = None) -> Tensor:
    """A bool tensor, each element True with probability `p`, a number or a tensor that
    broadcasts to `shape`."""
    shape = tuple(shape)
    dtype = d.float32
    if isinstance(p, Tensor):
        dtype = d.float64 if p.dtype is d.float64 else d.float32
        chance = cast(make(p._node) if p._storage is None else p.detach(), dtype)
    else:
        chance = scalar(float(p), dtype)
    key, at = take(generator, _unit_words(_numel(shape), dtype))
    return _below(key, at, chance, shape, dtype)


# ---------------------------------------------------------------- integers

@composite
def _narrow_range(key: Tensor, at: Tensor, count: Tensor, low: Tensor, shape: tuple[int, ...],
                  dtype: DType) -> Tensor:
    """low + floor(word * count / 2**32), for counts so small that the words share out evenly."""
    wide = prim("cast", _words(key, at, shape), dtype=int64)
    scaled = prim("shift_right", prim("mul", wide, expand_to(count, shape)),
                  _full(32, shape, int64))
    return cast(prim("add", scaled, expand_to(low, shape)), dtype)


def _long_words(key: Tensor, at: Tensor, shape: tuple[int, ...]) -> Tensor:
    high, low = (prim("cast", w, dtype=d.uint64) for w in _parts(key, at, 2, shape))
    return prim("bitwise_or", prim("shift_left", high, _full(32, shape, d.uint64)), low)


@composite
def _wide_range(key: Tensor, at: Tensor, count: Tensor, low: Tensor, shape: tuple[int, ...],
                dtype: DType) -> Tensor:
    """low + word % count with words of 64 bits."""
    rest = prim("remainder", _long_words(key, at, shape), expand_to(count, shape))
    out = prim("add", prim("cast", rest, dtype=int64), expand_to(low, shape))
    return cast(out, dtype)


@composite
def _every_word(key: Tensor, at: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    return cast(prim("cast", _long_words(key, at, shape), dtype=int64), dtype)


def integer_numbers(shape: tuple[int, ...], low: int, high: int, dtype: DType,
              generator: Generator | None) -> Tensor:
    """Integers in [low, high)."""
    count = high - low
    n = _numel(shape)
    if count <= 1 << 16:
        key, at = take(generator, n)
        return _narrow_range(key, at, scalar(count, int64), scalar(low, int64), shape, dtype)
    key, at = take(generator, 2 * n)
    if count >= 1 << 64:
        return _every_word(key, at, shape, dtype)
    return _wide_range(key, at, scalar(count, d.uint64), scalar(_signed(low), int64), shape, dtype)


# ---------------------------------------------------------------- other distributions

@composite
def inverse_numbers(u: Tensor, kind: str, a: Tensor, b: Tensor | None, dtype: DType) -> Tensor:
    """The inverse of a distribution function at u in [0, 1)."""
    shape = u._node.spec.shape
    first = expand_to(a, shape)
    if kind == "cauchy":
        assert b is not None
        angle = _times(_plus(u, -0.5), math.pi)
        out = prim("add", prim("mul", prim("tan", angle), expand_to(b, shape)), first)
    else:
        out = prim("neg", prim("log1p", prim("neg", u)))
        if kind == "exponential":
            out = prim("div", out, first)
        else:                                               # geometric: a is -log(1 - p)
            out = prim("ceil", prim("div", out, first))
            out = prim("maximum", out, _full(1.0, shape, out.dtype))
    return cast(out, dtype)


@composite
def exponentiated(z: Tensor, dtype: DType) -> Tensor:
    """e to normal numbers, in `dtype`."""
    return cast(prim("exp", z), dtype)


@composite
def _arrivals(key: Tensor, at: Tensor, weights: Tensor, count: int) -> Tensor:
    shape = weights._node.spec.shape
    dtype = compute_dtype(weights._node.spec.dtype)
    if dtype is d.float64:
        u = _unit(key, at, shape, dtype)
    else:
        # All 32 bits: those that arrive first of many are told apart finely.
        u = _times(_plus(prim("cast", _words(key, at, shape), dtype=d.float32), 0.5), 2.0 ** -32)
    waits = prim("neg", prim("log1p", prim("neg", u)))
    rates = cast(weights, dtype)
    some = prim("gt", rates, _full(0.0, shape, dtype))
    axis = len(shape) - 1
    top = prim("reshape", prim("amax", rates, attrs=((axis,),)), shape=(*shape[:-1], 1))
    time = prim("div", waits, prim("div", rates, expand_to(top, shape)))
    # those that never arrive come after the others, whatever u is
    late = 3e38 if dtype is d.float32 else 1e308
    time = prim("minimum", time, _full(late, shape, dtype))
    time = prim("where", some, time, _full(math.inf, shape, dtype))
    if count == 1:
        return prim("reshape", prim("argmin", time, attrs=(axis,)), shape=(*shape[:-1], 1))
    return prim("argsort", time, attrs=(axis, False, 0, count))


def arrival_order(weights: Tensor, count: int, generator: Generator | None = None) -> Tensor:
    """int64: the places of the first `count` to arrive, each after an exponential time with the
    rate in `weights` `[..., n]`."""
    dtype = compute_dtype(weights.dtype)
    key, at = take(generator, _unit_words(weights.numel(), dtype))
    result: Tensor = _arrivals(key, at, weights, count)
    return result


# ---------------------------------------------------------------- by rejection

@composite
def _rejected(key: Tensor, at: Tensor, kind: str, first: Tensor, second: Tensor | None) -> Tensor:
    parameters = (first,) if second is None else (first, second)
    return prim(kind, _long_words(key, at, tuple(first._node.spec.shape)), *parameters)


def rejection_numbers(kind: str, first: Tensor, second: Tensor | None = None,
                      generator: Generator | None = None) -> Tensor:
    """What the primitive `kind` draws for each element of its parameters, which have one shape
    and one floating dtype: draw_gamma (logarithms), draw_poisson, draw_binomial, draw_von_mises.
    """
    key, at = take(generator, 2 * first.numel())
    return _rejected(key, at, kind, first, second)
