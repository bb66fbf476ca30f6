"""Random numbers of the data pipeline: one stream a sample, found by counting.

A sample's augmentation must not depend on who computes it: the main process or a worker, one at a
time or a batch at once.  So nothing here has a state that is carried from sample to sample.  The
k-th number of a sample is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1,
2, 3", 2011) of (seed of the epoch; position of the sample in the epoch, k).  `SampleStream` reads
those numbers for one sample, `BatchStream` for many at once, and they read the same ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["BatchStream", "SampleStream", "draw_seed", "permutation", "raw", "stream", "streaming",
           "at_sample"]

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF
_UNIT = 2.0 ** -53


def _rounds(seed: int, c0: Any, c1: Any, c2: Any, c3: Any) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10 of 32-bit words; ints or uint64 arrays alike."""
    k0, k1 = seed & _LOW, seed >> 32 & _LOW
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1                     # below 2**64: nothing wraps
        c0, c1, c2, c3 = ((p1 >> 32) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) ^ c3 ^ k1, p0 & _LOW)
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def _philox(seed: int, position: Any, count: Any) -> Any:
    """53 random bits as a whole number for each (position, count)."""
    c0, c1, _, _ = _rounds(seed, position & _LOW, position >> 32, count, count & 0)
    return (c0 << 21) | (c1 >> 11)


def _philox_words(key: int, block: int) -> tuple[int, int]:
    """The first two words of a block of a Generator's stream."""
    c0, c1, _, _ = _rounds(key, block & _LOW, block >> 32, 0, 0)
    return c0, c1


class SampleStream:
    """The random numbers of one sample, one after another."""

    def __init__(self, seed: int, position: int = 0):
        self.seed = seed & 0xFFFFFFFFFFFFFFFF
        self.start = position
        self.position = position
        self.count = 0

    def move(self, offset: int) -> None:
        """Begin the stream of the sample `offset` places after the first of its batch."""
        self.position, self.count = self.start + offset, 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        bits = _philox(self.seed, self.position, self.count)
        self.count += 1
        return low + (high - low) * (bits * _UNIT)

    def integers(self, n: Any) -> int:
        """A whole number in [0, n)."""
        return min(int(self.uniform() * n), n - 1)

    def permutation(self, n: int) -> list[int]:
        """The numbers below n in random order."""
        keys = [self.uniform() for _ in range(n)]
        return sorted(range(n), key=keys.__getitem__)


class BatchStream:
    """The random numbers of many samples; every method returns an array with one for each.

    `subset(chosen)` is the same streams for some of the samples: what they read there has been
    read here too, and the others stay where they are.
    """

    def __init__(self, seed: int, positions: Any):
        self.seed = seed & 0xFFFFFFFFFFFFFFFF
        self._positions = np.asarray(positions, np.uint64)
        self._counts = np.zeros(len(self._positions), np.uint64)
        self._rows: Any = slice(None)

    def __len__(self) -> int:
        return len(self._positions)

    def subset(self, chosen: np.ndarray) -> BatchStream:
        """The streams of the samples where `chosen` (bool, one a sample) is true."""
        out = object.__new__(BatchStream)
        out.seed = self.seed
        out._positions = self._positions[chosen]
        out._counts = self._counts
        every = np.arange(len(self._counts))
        out._rows = every[self._rows][chosen]
        return out

    def uniform(self, low: Any = 0.0, high: Any = 1.0) -> np.ndarray:
        """A float64 in [low, high) for each sample."""
        bits = _philox(self.seed, self._positions, self._counts[self._rows])
        self._counts[self._rows] += np.uint64(1)
        return np.asarray(low + (high - low) * (bits * _UNIT))

    def integers(self, n: Any) -> np.ndarray:
        """An int64 in [0, n) for each sample; `n` is one number or one for each."""
        return np.minimum((self.uniform() * n).astype(np.int64), np.asarray(n, np.int64) - 1)


class _Loose(SampleStream):
    """Outside a loader: every number comes of the default generator, so `manual_seed` rules."""

    def __init__(self) -> None:
        super().__init__(0)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * ((draw_seed(None) >> 10) * _UNIT)


class _Current(threading.local):
    stream: SampleStream | None = None


_current = _Current()


def stream() -> SampleStream:
    """The stream that belongs to the sample being made in this thread."""
    return _current.stream or _Loose()


def at_sample(offset: int) -> None:
    """Say that what follows makes the sample `offset` places into its batch."""
    if _current.stream is not None:
        _current.stream.move(offset)


@contextmanager
def streaming(new: SampleStream) -> Iterator[SampleStream]:
    """Inside the block, `stream()` is `new`."""
    before, _current.stream = _current.stream, new
    try:
        yield new
    finally:
        _current.stream = before


def draw_seed(generator: Any = None) -> int:
    """A number in [0, 2**63) taken from a Generator, or from the default one for None.

    It is worked out here and not recorded: what the caller has pending stays pending.
    """
    from facula.random import default_generator
    key, block = (default_generator if generator is None else generator)._advance(2)
    low, high = _philox_words(key, block)
    return (high << 32 | low) >> 1


def raw(seed: int, n: int) -> np.ndarray:
    """n random uint64 that belong to `seed` (NumPy guarantees this generator's raw stream)."""
    return np.random.Philox(key=seed).random_raw(n)


def permutation(seed: int, n: int) -> np.ndarray:
    """The numbers below n (int64) in an order that belongs to `seed`."""
    bits = np.uint64(max(n - 1, 1).bit_length())
    keys = raw(seed, n) >> bits << bits            # each number under a random key: sort the two
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    return (keys & (np.uint64(1) << bits) - np.uint64(1)).astype(np.int64)


def as_indices(indices: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """The indices as int64 [n], or None if they are not all whole numbers."""
    try:
        array = np.asarray(indices)
    except ValueError:
        return None
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        return None
    return array.astype(np.int64, copy=False)
