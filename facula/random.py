"""Random numbers: counter-based, so that a seed means the same numbers on any number of threads.

A `Generator` is a key and a position.  A draw hands the two to the `philox` primitive as runtime
scalars, takes as many blocks of the stream as it needs and moves the position on: programs are
found again whatever the seed, and element i depends on nothing but seed, position and i.  The
numbers differ from PyTorch's for the same seed; their distributions do not.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from facula import dtypes as d
from facula.device import check_device
from facula.device import device as Device
from facula.dtype import DType, int64, uint8
from facula.errors import DTypeError
from facula.graph.record import _local
from facula.ops.creation import _like, as_dtype, finish, size_of
from facula.ops.define import _into, composite
from facula.ops.primitive.creation import philox4x32
from facula.ops.promote import broadcast_shapes, cast, expand_to, get_default_dtype
from facula.tensor import Tensor, from_array, make, prim, scalar

__all__ = ["Generator", "default_generator", "manual_seed", "seed", "initial_seed",
           "get_rng_state", "set_rng_state", "fork_rng", "rand", "randn", "randint", "randperm",
           "rand_like", "randn_like", "randint_like", "normal", "bernoulli", "multinomial",
           "poisson", "binomial", "bernoulli_mask", "uniform_numbers", "normal_numbers", "take"]

_MASK = (1 << 64) - 1
_DEFAULT_SEED = 67280421310721


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


class Generator:
    """A stream of random numbers: `manual_seed` chooses it, every draw moves along it."""

    def __init__(self, device: Any = "cpu"):
        check_device(device)
        self._seed = _DEFAULT_SEED
        self._position = 0
        self._lock = threading.Lock()

    @property
    def device(self) -> Device:
        return Device("cpu")

    def manual_seed(self, seed: int) -> Generator:
        """Begin the stream of `seed`, any integer of 64 bits."""
        if isinstance(seed, Tensor):
            seed = seed.item()                               # type: ignore[attr-defined]
        if not hasattr(seed, "__index__"):
            if not isinstance(seed, float):
                raise TypeError(f"manual_seed expected a long, but got {type(seed).__name__}")
            seed = int(seed)
        seed = int(seed)
        if not -(1 << 63) <= seed < 1 << 64:
            raise RuntimeError(f"Overflow when unpacking long: the seed {seed} has more than 64 "
                               "bits")
        with self._lock:
            self._seed = seed & _MASK
            self._position = 0
        return self

    def seed(self) -> int:
        """Begin a stream that cannot be foreseen; returns its seed."""
        fresh = secrets.randbits(63)
        self.manual_seed(fresh)
        return fresh

    def initial_seed(self) -> int:
        """The seed of the present stream."""
        return self._seed

    def get_state(self) -> Tensor:
        """Seed and position as a uint8 tensor, for `set_state`."""
        with self._lock:
            words = np.array([self._seed, self._position], np.uint64)
        return from_array(words.view(np.uint8))

    def set_state(self, new_state: Tensor) -> Generator:
        """Go back to where `get_state` was called."""
        if not isinstance(new_state, Tensor):
            raise TypeError(f"expected a Tensor, but got {type(new_state).__name__}")
        if new_state.dtype is not uint8:
            raise TypeError(f"RNG state must be a uint8 tensor, and this one is "
                            f"{new_state.dtype.name}")
        if new_state.shape != (16,):
            raise RuntimeError(f"RNG state is wrong size: 16 bytes, and this one has "
                               f"{new_state.numel()}")
        seed, position = np.array(new_state._peek()).view(np.uint64).tolist()
        with self._lock:
            self._seed, self._position = seed, position
        return self

    def clone_state(self) -> Generator:
        """Another generator at the same place."""
        return Generator().set_state(self.get_state())

    def _advance(self, words: int) -> tuple[int, int]:
        """Take `words` numbers of 32 bits: the key, and the block they begin at."""
        with self._lock:
            position = self._position
            self._position = (position + -(-words // 4)) & _MASK
            return self._seed, position

    def __reduce__(self) -> Any:
        return _restore, (self._seed, self._position)

    def __repr__(self) -> str:
        return f"<facula.Generator seed={self._seed} position={self._position}>"


def _restore(seed: int, position: int) -> Generator:
    out = Generator()
    out._seed, out._position = seed, position
    return out


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Begin the stream of `seed` in the default generator; returns it."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Begin a stream that cannot be foreseen; returns its seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the default generator began with."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Put the default generator back to a state."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **_: Any) -> Iterator[None]:
    """Leave the default generator after the block as it was before it."""
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)


# ---------------------------------------------------------------- numbers from the stream

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
    key, position = generator._advance(words)
    return scalar(_signed(key), int64), scalar(_signed(position), int64)


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


def _compute(dtype: DType) -> DType:
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
    wide = _compute(dtype)
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
    wide = _compute(dtype)
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


def _integers(shape: tuple[int, ...], low: int, high: int, dtype: DType,
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


# ---------------------------------------------------------------- creating tensors

def _given(name: str, size: Any, dtype: Any, device: Any, out: Any, kw: dict[str, Any],
           default: DType | None = None) -> tuple[tuple[int, ...], DType]:
    if "size" in kw and not size:
        size = (kw.pop("size"),)
    if kw:
        raise TypeError(f"{name}() got an unexpected keyword argument '{next(iter(kw))}'")
    check_device(device)
    if dtype is not None:
        want = as_dtype(dtype)
    elif out is not None:
        want = out.dtype
    else:
        want = default or get_default_dtype()
    return size_of(name, size), want


def _drawn(value: Tensor, out: Tensor | None, requires_grad: bool, order: Any = None) -> Tensor:
    if out is not None:
        return _into(lambda: value, (), {"out": out})       # type: ignore[no-any-return]
    return finish(value, requires_grad, order)


def rand(*size: Any, generator: Generator | None = None, out: Tensor | None = None,
         dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
         pin_memory: bool = False, names: Any = None, order: Any = None, **kw: Any) -> Tensor:
    """Uniform numbers in [0, 1): `rand(2, 3)`."""
    shape, want = _given("rand", size, dtype, device, out, kw)
    return _drawn(uniform_numbers(shape, want, generator=generator), out, requires_grad, order)


def randn(*size: Any, generator: Generator | None = None, out: Tensor | None = None,
          dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
          pin_memory: bool = False, names: Any = None, order: Any = None, **kw: Any) -> Tensor:
    """Normal numbers of mean 0 and variance 1: `randn(2, 3)`."""
    shape, want = _given("randn", size, dtype, device, out, kw)
    return _drawn(normal_numbers(shape, want, generator=generator), out, requires_grad, order)


def _bounds(name: str, low: Any, high: Any, dtype: DType) -> tuple[int, int]:
    low = low.item() if isinstance(low, Tensor) else low     # type: ignore[attr-defined]
    high = high.item() if isinstance(high, Tensor) else high     # type: ignore[attr-defined]
    low, high = int(low), int(high)
    if low >= high:
        raise RuntimeError(f"{name} expects 'from' to be less than 'to', but got from={low} >= "
                           f"to={high}")
    if dtype.kind in "ui":
        bits = 8 * dtype.itemsize
        least = 0 if dtype.kind == "u" else -(1 << (bits - 1))
        most = (1 << (bits - (dtype.kind == "i"))) - 1
        if low < least or high - 1 > most:
            raise RuntimeError(f"from={low} and to - 1 = {high - 1} have to be in the range of "
                               f"{dtype.name}, [{least}, {most}]")
    elif dtype.kind == "b" and (low < 0 or high > 2):
        raise RuntimeError(f"from={low} and to={high} are out of bounds for bool")
    return low, high


def randint(*args: Any, generator: Generator | None = None, out: Tensor | None = None,
            dtype: Any = None, layout: Any = None, device: Any = None,
            requires_grad: bool = False, pin_memory: bool = False, **kw: Any) -> Tensor:
    """Integers in [low, high): `randint(high, size)` or `randint(low, high, size)`."""
    names = ("low", "high", "size")
    given = {k: kw.pop(k) for k in names if k in kw}
    if kw:
        raise TypeError(f"randint() got an unexpected keyword argument '{next(iter(kw))}'")
    if args:
        free = [n for n in names if n not in given]
        if len(args) + len(given) == 2:
            free = [n for n in free if n != "low"]
        if len(args) > len(free):
            raise TypeError("randint() takes (high, size) or (low, high, size)")
        given.update(zip(free, args))
    if "high" not in given or "size" not in given:
        raise TypeError("randint() takes (high, size) or (low, high, size)")
    shape, want = _given("randint", (given["size"],), dtype, device, out, {}, int64)
    low, high = _bounds("random_", given.get("low", 0), given["high"], want)
    return _drawn(_integers(shape, low, high, want, generator), out, requires_grad)


def _host_words(generator: Generator | None, count: int) -> np.ndarray:
    """uint64 numbers of the stream, now."""
    key, at = (generator or default_generator)._advance(2 * count)
    blocks = -(-count // 2)
    with np.errstate(over="ignore"):
        counter = np.arange(blocks, dtype=np.uint64) + np.uint64(at)
    return philox4x32(counter, key).view(np.uint64).reshape(-1)[:count]


def _host_unit(generator: Generator | None, shape: tuple[int, ...]) -> np.ndarray:
    """float64 numbers in [0, 1), now."""
    words = _host_words(generator, _numel(shape)) >> np.uint64(11)
    return (words.astype(np.float64) * 2.0 ** -53).reshape(shape)


def randperm(n: int, *, generator: Generator | None = None, out: Tensor | None = None,
             dtype: Any = None, layout: Any = None, device: Any = None,
             requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """The integers 0 ... n - 1 in random order."""
    check_device(device)
    if n < 0:
        raise RuntimeError(f"n must be non-negative, got{n}")
    want = as_dtype(dtype) if dtype is not None else out.dtype if out is not None else int64
    order = np.argsort(_host_words(generator, n), kind="stable")
    return _drawn(from_array(order.astype(want.np)), out, requires_grad)


def rand_like(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
              requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
              generator: Generator | None = None) -> Tensor:
    """Uniform numbers in [0, 1) in the shape of `input`."""
    check_device(device)
    want = input.dtype if dtype is None else as_dtype(dtype)
    return _like(input, memory_format, None,
                 uniform_numbers(input._node.spec.shape, want, generator=generator),
                 requires_grad)


def randn_like(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
               requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
               generator: Generator | None = None) -> Tensor:
    """Normal numbers of mean 0 and variance 1 in the shape of `input`."""
    check_device(device)
    want = input.dtype if dtype is None else as_dtype(dtype)
    return _like(input, memory_format, None,
                 normal_numbers(input._node.spec.shape, want, generator=generator),
                 requires_grad)


def randint_like(input: Tensor, low: Any = None, high: Any = None, *, dtype: Any = None,
                 layout: Any = None, device: Any = None, requires_grad: bool = False,
                 pin_memory: bool = False, memory_format: Any = None,
                 generator: Generator | None = None) -> Tensor:
    """Integers in [low, high) in the shape and dtype of `input`; `randint_like(input, high)`."""
    check_device(device)
    if high is None:
        low, high = 0, low
    want = input.dtype if dtype is None else as_dtype(dtype)
    low, high = _bounds("random_", 0 if low is None else low, high, want)
    value = _integers(input._node.spec.shape, low, high, want, generator)
    return _like(input, memory_format, None, value, requires_grad)


# ---------------------------------------------------------------- distributions

def normal(mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
           out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
           requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """Normal numbers; `mean` and `std` tensors or numbers (then with `size`)."""
    check_device(device)
    if size is not None:
        shape, want = _given("normal", (size,), dtype, None, out, {})
        _check_std(std)
        return _drawn(normal_numbers(shape, want, mean, std, generator), out, requires_grad)
    tensors = [t for t in (mean, std) if isinstance(t, Tensor)]
    if not tensors:
        raise TypeError("normal() of two numbers needs size")
    for t in tensors:
        if t.dtype.kind not in "fc":
            raise DTypeError(f"normal expects floating tensors, and got {t.dtype.name}")
    if isinstance(std, Tensor):
        if std.dtype.kind == "c":
            raise RuntimeError("normal expects standard deviation to be non-complex")
        if std.numel() and (std._peek() < 0).any():
            raise RuntimeError("normal expects all elements of std >= 0.0")
    else:
        _check_std(std)
    kind = mean.dtype if isinstance(mean, Tensor) else std.dtype
    shape = tuple(broadcast_shapes(*(t._node.spec.shape for t in tensors)))
    z = normal_numbers(shape, kind, generator=generator)
    value = z * (std.detach() if isinstance(std, Tensor) else std)    # type: ignore[operator]
    value = value + (mean.detach() if isinstance(mean, Tensor) else mean)
    return _drawn(cast(value, kind), out, requires_grad)


def _check_std(std: Any) -> None:
    if not isinstance(std, Tensor) and std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {float(std):g}")


def _check_probability(name: str, p: float, open_ended: bool = False) -> None:
    if not (0 < p < 1 if open_ended else 0 <= p <= 1):
        raise RuntimeError(f"{name} expects p to be in {'(0, 1)' if open_ended else '[0, 1]'}, "
                           f"but got p={p}")


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None,
              out: Tensor | None = None) -> Tensor:
    """0 or 1, 1 with the probability in `input` (or `p`), in the dtype of `input`."""
    if p is not None:
        _check_probability("bernoulli", p)
        return _drawn(cast(bernoulli_mask(input._node.spec.shape, p, generator), input.dtype),
                      out, False)
    if input.dtype.kind != "f":
        raise DTypeError(f"bernoulli expects floating probabilities, and got {input.dtype.name}")
    if input.numel():
        probabilities = input._peek()
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    mask = bernoulli_mask(input._node.spec.shape, input, generator)
    return _drawn(cast(mask, input.dtype), out, False)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None, out: Tensor | None = None) -> Tensor:
    """Indices drawn with the weights in each row of `input`, [n] or [m, n]; int64.

    Without replacement every index appears once at most (Efraimidis and Spirakis 2006).
    """
    if input.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if input.dtype.kind != "f":
        raise RuntimeError("multinomial only supports floating-point dtypes for input, got: "
                           f"{input.dtype.name}")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    weights = np.atleast_2d(np.asarray(input._peek(), np.float64))
    rows, n = weights.shape
    if not replacement and num_samples > n:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without "
                           "replacement")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if (weights.sum(1) <= 0).any():
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    if replacement:
        total = np.cumsum(weights, 1)
        draws = _host_unit(generator, (rows, num_samples)) * total[:, -1:]
        picked = np.stack([np.searchsorted(t, u, "right") for t, u in zip(total, draws)]) \
            if rows else np.empty((0, num_samples), np.int64)
        last = n - 1 - np.argmax(weights[:, ::-1] > 0, 1)
        picked = np.minimum(picked, last[:, None])
    else:
        if ((weights > 0).sum(1) < num_samples).any():
            raise RuntimeError("invalid multinomial distribution (with replacement=False, not "
                               "enough non-negative category to sample)")
        waits = -np.log1p(-_host_unit(generator, (rows, n)))
        with np.errstate(divide="ignore", invalid="ignore"):
            arrival = np.where(weights > 0, waits / weights, np.inf)
        picked = np.argsort(arrival, 1, kind="stable")[:, :num_samples]
    value = from_array(np.ascontiguousarray(picked.astype(np.int64)))
    if input.ndim == 1:
        value = prim("reshape", value, shape=(num_samples,))
    return _drawn(value, out, False)


def _numpy_generator(generator: Generator | None, count: int) -> Any:
    key, at = (generator or default_generator)._advance(count)
    return np.random.Generator(np.random.Philox(key=key, counter=at))


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers with the rates in `input`, in its dtype."""
    rates = np.asarray(input._peek(), np.float64)
    if (rates < 0).any():
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
    drawn = _numpy_generator(generator, input.numel()).poisson(rates)
    return from_array(np.asarray(drawn).astype(input.dtype.np))


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials succeed with probability `prob`."""
    n, p = np.broadcast_arrays(np.asarray(count._peek(), np.float64),
                               np.asarray(prob._peek(), np.float64))
    drawn = _numpy_generator(generator, n.size).binomial(n.astype(np.int64), p)
    return from_array(np.asarray(drawn).astype(count.dtype.np))


# ---------------------------------------------------------------- in place

def _floating(name: str, t: Tensor) -> DType:
    if t.dtype.kind not in "fc":
        raise DTypeError(f'"{name}" not implemented for {t.dtype.name}')
    return t.dtype


def _write(t: Tensor, value: Tensor) -> Tensor:
    return t._write(cast(value, t.dtype))


def uniform_(self: Tensor, a: float = 0, b: float = 1, *, generator: Generator | None = None,
             **kw: Any) -> Tensor:
    """Overwrite with uniform numbers in [a, b); PyTorch's `from` and `to` are taken too."""
    a, b = kw.get("from", a), kw.get("to", b)
    dtype = _floating("check_uniform_bounds", self)
    if a > b:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={a} > "
                           f"to={b}")
    return self._write(uniform_numbers(self._node.spec.shape, dtype, a, b, generator))


def normal_(self: Tensor, mean: float = 0, std: float = 1, *,
            generator: Generator | None = None) -> Tensor:
    """Overwrite with normal numbers."""
    dtype = _floating("normal_kernel_cpu", self)
    _check_std(std)
    return self._write(normal_numbers(self._node.spec.shape, dtype, mean, std, generator))


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with 0 and 1, 1 with probability `p`, a number or a tensor that broadcasts."""
    if not isinstance(p, Tensor):
        _check_probability("bernoulli_", p)
    return _write(self, bernoulli_mask(self._node.spec.shape, p, generator))


def random_(self: Tensor, *bounds: Any, generator: Generator | None = None,
            **kw: Any) -> Tensor:
    """Overwrite with integers: `random_()`, `random_(to)`, `random_(from, to)`.

    Without bounds all that the dtype holds from 0 on: integers up to their maximum, floating
    ones up to where they no longer tell integers apart.
    """
    dtype = self.dtype
    low = kw.get("from", 0)
    high = kw.get("to")
    if len(bounds) == 1:
        high = bounds[0]
    elif len(bounds) == 2:
        low, high = bounds
    if high is None:
        if dtype.kind == "f":
            high = (1 << {"float16": 11, "bfloat16": 8, "float32": 24,
                          "float64": 53}[dtype.name]) + 1
        else:
            high = 2 if dtype.kind == "b" else 1 << (8 * dtype.itemsize - (dtype.kind == "i"))
    low, high = _bounds("random_", low, high, dtype)
    return self._write(_integers(self._node.spec.shape, low, high, dtype, generator))


@composite
def _shaped(u: Tensor, kind: str, a: Tensor, b: Tensor | None, dtype: DType) -> Tensor:
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


def _from_unit(self: Tensor, kind: str, a: float, b: float | None,
               generator: Generator | None) -> Tensor:
    own = self.dtype
    wide = d.float64 if own is d.float64 or own.kind in "iu" else d.float32
    u = uniform_numbers(self._node.spec.shape, wide, generator=generator)
    second = None if b is None else scalar(float(b), wide)
    return self._write(_shaped(u, kind, scalar(float(a), wide), second, own))


def exponential_(self: Tensor, lambd: float = 1, *,
                 generator: Generator | None = None) -> Tensor:
    """Overwrite with exponential numbers of rate `lambd`."""
    _floating("exponential", self)
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    return _from_unit(self, "exponential", lambd, None, generator)


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with the number of trials up to the first success, of probability `p`."""
    _check_probability("geometric_", p, open_ended=True)
    return _from_unit(self, "geometric", -math.log1p(-p), None, generator)


def cauchy_(self: Tensor, median: float = 0, sigma: float = 1, *,
            generator: Generator | None = None) -> Tensor:
    """Overwrite with Cauchy numbers."""
    _floating("cauchy", self)
    if not sigma > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    return _from_unit(self, "cauchy", median, sigma, generator)


@composite
def _exponentiated(z: Tensor, dtype: DType) -> Tensor:
    return cast(prim("exp", z), dtype)


def log_normal_(self: Tensor, mean: float = 1, std: float = 2, *,
                generator: Generator | None = None) -> Tensor:
    """Overwrite with numbers whose logarithms are normal."""
    dtype = _floating("log_normal", self)
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    z = normal_numbers(self._node.spec.shape, _compute(dtype), mean, std, generator)
    return self._write(_exponentiated(z, dtype))


for _fn in (uniform_, normal_, bernoulli_, random_, exponential_, geometric_, cauchy_,
            log_normal_, multinomial, bernoulli):
    setattr(Tensor, _fn.__name__, _fn)
