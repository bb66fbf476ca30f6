"""Samplers: in which order a loader asks for samples.

The library's own samplers also have `_order()`: the whole epoch's indices as one int64 array, of
which their iterators are a reading.  A loader that knows both sampler and dataset slices it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from facula.data import rng
from facula.data.arrays import is_tensor, peek

__all__ = ["Sampler", "SequentialSampler", "RandomSampler", "SubsetRandomSampler",
           "WeightedRandomSampler", "BatchSampler", "DistributedSampler"]

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """The base class: subclasses define `__iter__` over indices (or lists of them)."""

    def __init__(self, data_source: Sized | None = None):
        pass

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError("Subclasses of Sampler should implement __iter__.")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ... always in that order."""

    data_source: Sized

    def __init__(self, data_source: Sized):
        self.data_source = data_source

    def _order(self) -> np.ndarray:
        return np.arange(len(self.data_source), dtype=np.int64)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


_PIECE = 1 << 16          # indices drawn at a time
_WHOLE = 1 << 26          # indices of an epoch that are kept at once: half a gigabyte


class RandomSampler(Sampler[int]):
    """Indices in random order, with or without replacement.

    num_samples  how many to draw; the length of the data source unless given.  Without
                 replacement, more than that length means one shuffle after another.
    generator    where the randomness comes from; the default generator unless given.
    """

    data_source: Sized
    replacement: bool

    def __init__(self, data_source: Sized, replacement: bool = False,
                 num_samples: int | None = None, generator: Any = None):
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(self.replacement, bool):
            raise TypeError(
                f"replacement should be a boolean value, but got replacement={self.replacement}")
        if not isinstance(self.num_samples, int) or self.num_samples < 0 or (
                num_samples is not None and (isinstance(num_samples, bool) or num_samples == 0)):
            raise ValueError("num_samples should be a positive integer value, but got "
                             f"num_samples={self.num_samples}")

    @property
    def num_samples(self) -> int:
        """How many indices an epoch has (the data source may grow between epochs)."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def _pieces(self) -> Iterator[np.ndarray]:
        """The epoch, a piece at a time: it may be longer than fits in memory."""
        n, wanted = len(self.data_source), self.num_samples
        if not wanted or not n:
            return iter(())
        seed = rng.draw_seed(self.generator)
        if self.replacement:
            source = np.random.Philox(key=seed)
            return (_below(source.random_raw(min(_PIECE, wanted - k)), n)
                    for k in range(0, wanted, _PIECE))
        return (rng.permutation(seed + r & (1 << 63) - 1, n)[:wanted - r * n]
                for r in range(-(-wanted // n)))

    def _order(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.int64), *self._pieces()])

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(p.tolist() for p in self._pieces())

    def __len__(self) -> int:
        return self.num_samples


def _below(bits: np.ndarray, n: int) -> np.ndarray:
    """Random uint64 -> int64 in [0, n): the high half of 32-bit products, or a remainder."""
    if n <= 1 << 32:
        return ((bits >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)).astype(np.int64)
    return (bits % np.uint64(n)).astype(np.int64)


class SubsetRandomSampler(Sampler[int]):
    """The given indices in random order, without replacement."""

    indices: Sequence[int]

    def __init__(self, indices: Sequence[int], generator: Any = None):
        self.indices = indices
        self.generator = generator

    def _order(self) -> np.ndarray | None:
        indices = rng.as_indices(self.indices)
        if indices is None:
            return None
        if not len(indices):
            return indices
        return indices[rng.permutation(rng.draw_seed(self.generator), len(indices))]

    def __iter__(self) -> Iterator[int]:
        if len(self.indices):
            for i in rng.permutation(rng.draw_seed(self.generator), len(self.indices)).tolist():
                yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices 0 .. len(weights)-1 drawn with probability proportional to their weights.

    Raises `ValueError` for weights that are negative, not finite, all zero or not one-dimensional,
    and without replacement for more samples than there are weights above zero.
    """

    weights: np.ndarray
    num_samples: int
    replacement: bool

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True,
                 generator: Any = None):
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError("num_samples should be a positive integer value, but got "
                             f"num_samples={num_samples}")
        if not isinstance(replacement, bool):
            raise ValueError(
                f"replacement should be a boolean value, but got replacement={replacement}")
        array = np.array(peek(weights) if is_tensor(weights) else weights, np.float64)
        if array.ndim != 1:
            raise ValueError("weights should be a 1d sequence but given weights have shape "
                             f"{tuple(array.shape)}")
        if not np.isfinite(array).all() or (array < 0).any() or not (array > 0).any():
            raise ValueError("weights should be finite, not negative and not all zero")
        if not replacement and num_samples > int((array > 0).sum()):
            raise ValueError(f"cannot draw {num_samples} samples without replacement from "
                             f"{int((array > 0).sum())} indices with a weight above zero")
        self.weights = array
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def _order(self) -> np.ndarray:
        seed = rng.draw_seed(self.generator)
        count = self.num_samples if self.replacement else len(self.weights)
        unit = ((rng.raw(seed, count) >> np.uint64(11)) + 0.5) * 2.0 ** -53    # in (0, 1)
        if self.replacement:
            ends = np.cumsum(self.weights)
            found = np.searchsorted(ends, unit * ends[-1], side="right")
            last = int(np.flatnonzero(self.weights)[-1])
            return np.minimum(found, last).astype(np.int64)
        # Efraimidis & Spirakis 2006: the largest values of u ** (1 / w) are such a draw.
        with np.errstate(divide="ignore"):
            keys = np.where(self.weights > 0, np.log(unit) / self.weights, -np.inf)
        return np.argsort(-keys, kind="stable")[:self.num_samples].astype(np.int64)

    def __iter__(self) -> Iterator[int]:
        return iter(self._order().tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Groups another sampler's indices into lists of `batch_size`.

    drop_last  leave out a last batch that is smaller.
    """

    def __init__(self, sampler: Sampler[int] | Iterable[int], batch_size: int, drop_last: bool):
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError("batch_size should be a positive integer value, but got "
                             f"batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(
                f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)                                  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


_OWN = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def order_of(batch_sampler: Any) -> np.ndarray | None:
    """The epoch's indices as an array, if `batch_sampler` is the library's own throughout.

    None, too, for an epoch of more indices than one keeps in memory (`_WHOLE`).

    Asking draws the epoch's random numbers, just as iterating would.
    """
    sampler = getattr(batch_sampler, "sampler", None)
    if type(batch_sampler) is not BatchSampler or type(sampler) not in _OWN:
        return None
    if isinstance(sampler, RandomSampler) and sampler.num_samples > _WHOLE:
        return None
    return sampler._order()                               # type: ignore[no-any-return,union-attr]


class DistributedSampler(Sampler[int]):
    """The part of a data set that one of several processes sees: every `num_replicas`-th index.

    num_replicas, rank  how many processes there are, and which this one is; they have to be given,
                        since facula has no process groups to ask (RuntimeError)
    shuffle, seed       draw another order in each epoch (see `set_epoch`), the same for all
    drop_last           leave indices out so that all see as many; otherwise some are seen twice

    ValueError for a rank that is not one of the processes'.
    """

    def __init__(self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None,
                 shuffle: bool = True, seed: int = 0, drop_last: bool = False):
        if num_replicas is None or rank is None:
            raise RuntimeError("DistributedSampler: facula has no process groups to ask, so "
                               "num_replicas and rank have to be given")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval "
                             f"[0, {num_replicas - 1}]")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        n = len(dataset)
        self.num_samples = n // num_replicas if drop_last and n % num_replicas \
            else -(-n // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def _order(self) -> np.ndarray:
        n = len(self.dataset)
        order = rng.permutation(self.seed + self.epoch, n) if self.shuffle \
            else np.arange(n, dtype=np.int64)
        return np.resize(order, self.total_size)[self.rank::self.num_replicas]

    def __iter__(self) -> Iterator[int]:
        return iter(self._order().tolist())

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Let the next order be that of `epoch`."""
        self.epoch = epoch
