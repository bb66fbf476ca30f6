"""Random numbers: counter-based, so that a seed means the same numbers on any number of threads.

The functions of `torch.random` and those that make or fill tensors at random.  The numbers differ
from PyTorch's for the same seed; their distributions do not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facula import dtypes as d
from facula.device import check_device
from facula.dtype import DType, int64
from facula.errors import DTypeError
from facula.generator import (
    Generator,
    default_generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from facula.graph.record import _local
from facula.ops.creation import _like, as_dtype, finish, size_of
from facula.ops.draws import (
    arrival_order,
    bernoulli_mask,
    compute_dtype,
    exponentiated,
    integer_numbers,
    inverse_numbers,
    normal_numbers,
    once,
    take,
    uniform_numbers,
)
from facula.ops.given import into
from facula.ops.primitive.creation import philox4x32
from facula.ops.promote import broadcast_shapes, cast, get_default_dtype
from facula.tensor import Tensor, from_array, prim, scalar

__all__ = ["Generator", "default_generator", "manual_seed", "seed", "initial_seed",
           "get_rng_state", "set_rng_state", "fork_rng", "rand", "randn", "randint", "randperm",
           "rand_like", "randn_like", "randint_like", "normal", "bernoulli", "multinomial",
           "poisson", "binomial", "bernoulli_mask", "uniform_numbers", "normal_numbers", "take"]


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
        return into(out, value)
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
    return _drawn(integer_numbers(shape, low, high, want, generator), out, requires_grad)


def _host_words(generator: Generator | None, count: int) -> np.ndarray:
    """uint64 numbers of the stream, now."""
    once()
    key, at = (generator or default_generator)._advance(2 * count)
    blocks = -(-count // 2)
    with np.errstate(over="ignore"):
        counter = np.arange(blocks, dtype=np.uint64) + np.uint64(at)
    return philox4x32(counter, key).view(np.uint64).reshape(-1)[:count]


def _host_unit(generator: Generator | None, shape: tuple[int, ...]) -> np.ndarray:
    """float64 numbers in [0, 1), now."""
    words = _host_words(generator, math.prod(shape)) >> np.uint64(11)
    return (words.astype(np.float64) * 2.0 ** -53).reshape(shape)


def randperm(n: int, *, generator: Generator | None = None, out: Tensor | None = None,
             dtype: Any = None, layout: Any = None, device: Any = None,
             requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """The integers 0 ... n - 1 in random order."""
    check_device(device)
    if n < 0:
        raise RuntimeError(f"n must be non-negative, got{n}")
    want = as_dtype(dtype) if dtype is not None else out.dtype if out is not None else int64
    words = _host_words(generator, n)
    order = np.argsort(words)                       # faster than the stable way
    line = words[order]
    if (line[1:] == line[:-1]).any():
        order = np.argsort(words, kind="stable")
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
    value = integer_numbers(input._node.spec.shape, low, high, want, generator)
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
        if std.numel() and _local.rec.outer is None and (std._peek() < 0).any():
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
    if input.numel() and _local.rec.outer is None:
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
    if out is not None and out.dtype is not int64:
        raise DTypeError(f"multinomial expects an int64 out, got: {out.dtype.name}")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    given = input._peek()
    if given.dtype.itemsize < 4:
        given = given.astype(np.float32)
    weights = np.atleast_2d(given)
    rows, n = weights.shape
    if not replacement and num_samples > n:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without "
                           "replacement")
    if weights.size and not (weights.min() >= 0 and weights.max() < np.inf):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if (weights.sum(1, dtype=np.float64) <= 0).any():
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement:
        if num_samples > 1 and (np.count_nonzero(weights, 1) < num_samples).any():
            raise RuntimeError("invalid multinomial distribution (with replacement=False, not "
                               "enough non-negative category to sample)")
        return _drawn(arrival_order(input.detach(), num_samples, generator), out, False)
    total = np.cumsum(weights, 1, dtype=np.float64)
    draws = _host_unit(generator, (rows, num_samples)) * total[:, -1:]
    picked = np.stack([np.searchsorted(t, u, "right") for t, u in zip(total, draws)]) \
        if rows else np.empty((0, num_samples), np.int64)
    last = n - 1 - np.argmax(weights[:, ::-1] > 0, 1)
    picked = np.minimum(picked, last[:, None])
    value = from_array(np.ascontiguousarray(picked.astype(np.int64)))
    if input.ndim == 1:
        value = prim("reshape", value, shape=(num_samples,))
    return _drawn(value, out, False)


def _numpy_generator(generator: Generator | None) -> Any:
    """NumPy's, on a stream of its own for this place in the generator's: how many numbers a draw
    by rejection takes is not known beforehand."""
    once()
    key, at = (generator or default_generator)._advance(1)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([key, at])))


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers with the rates in `input`, in its dtype."""
    rates = np.asarray(input._peek(), np.float64)
    if (rates < 0).any():
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
    drawn = _numpy_generator(generator).poisson(rates)
    return from_array(np.asarray(drawn).astype(input.dtype.np))


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials succeed with probability `prob`."""
    n, p = np.broadcast_arrays(np.asarray(count._peek(), np.float64),
                               np.asarray(prob._peek(), np.float64))
    drawn = _numpy_generator(generator).binomial(n.astype(np.int64), p)
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
    return self._write(integer_numbers(self._node.spec.shape, low, high, dtype, generator))


def _from_unit(self: Tensor, kind: str, a: float, b: float | None,
               generator: Generator | None) -> Tensor:
    own = self.dtype
    wide = d.float64 if own is d.float64 or own.kind in "iu" else d.float32
    u = uniform_numbers(self._node.spec.shape, wide, generator=generator)
    second = None if b is None else scalar(float(b), wide)
    return self._write(inverse_numbers(u, kind, scalar(float(a), wide), second, own))


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


def log_normal_(self: Tensor, mean: float = 1, std: float = 2, *,
                generator: Generator | None = None) -> Tensor:
    """Overwrite with numbers whose logarithms are normal."""
    dtype = _floating("log_normal", self)
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    z = normal_numbers(self._node.spec.shape, compute_dtype(dtype), mean, std, generator)
    return self._write(exponentiated(z, dtype))


for _fn in (uniform_, normal_, bernoulli_, random_, exponential_, geometric_, cauchy_,
            log_normal_, multinomial, bernoulli):
    setattr(Tensor, _fn.__name__, _fn)
