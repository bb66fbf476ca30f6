"""How a batch is made: sample by sample, or at once where that is known to be the same.

A dataset of the library offers `_batch_source()`: an object that gathers any batch of it with a
few array operations.  It is used only where nothing of the user's would be passed over: the
dataset's `__getitem__`, the transforms, the sampler and the collate function are all the
library's own, or declare a form for whole batches.  Otherwise, and for the rest of the epoch when
something is changed in its middle, samples are made one at a time.  Both ways give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from facula.data import rng
from facula.data.arrays import Held, new_tensor
from facula.data.collate import default_collate, untouched
from facula.data.sampler import order_of
from facula.dtype import from_numpy_dtype

__all__ = ["Gather", "Renumbered", "Source", "batches_at_once", "declares", "make_fetcher",
           "source_of"]


def declares(kind: type, batch_form: str, sample_forms: tuple[str, ...]) -> bool:
    """Does `batch_form` of this class speak for its per-sample methods?

    It does if no subclass of the class that defines it has redefined one of `sample_forms`.
    """
    for cls in kind.__mro__:
        names = vars(cls)
        if batch_form in names:
            return names[batch_form] is not None
        if any(name in names for name in sample_forms):
            return False
    return False


class Source:
    """Makes batches of a dataset at once: what `_batch_source()` returns.

    `size` samples are numbered from 0; `fetch` returns what collating them would.
    """

    size: int

    def fetch(self, indices: np.ndarray, stream: rng.BatchStream | None) -> list[Any]:
        """The collated batch of the samples at `indices` (int64 [B], each in range)."""
        raise NotImplementedError("Subclasses of Source should implement fetch.")

    @property
    def random(self) -> bool:
        """Whether `fetch` wants a stream."""
        return False

    def current(self) -> bool:
        """Whether the dataset is still as it was when the source was made."""
        return True


class Gather(Source):
    """Rows of tensors [N, ...]."""

    def __init__(self, tensors: tuple[Any, ...]):
        self.held = [Held(t) for t in tensors]
        self.dtypes = [t.dtype for t in tensors]
        self.size = int(tensors[0].shape[0])

    def fetch(self, indices: np.ndarray, stream: rng.BatchStream | None) -> list[Any]:
        return [take_rows(held.array(), indices, dtype)
                for held, dtype in zip(self.held, self.dtypes)]


def take_rows(array: np.ndarray, indices: np.ndarray, dtype: Any = None) -> Any:
    """A new tensor of the rows of `array` [N, ...] at `indices`, which are in range."""
    out, memory = new_tensor((len(indices), *array.shape[1:]),
                             dtype or from_numpy_dtype(array.dtype))
    array.take(indices, axis=0, out=memory, mode="clip")      # "clip" needs no buffering
    return out


class Renumbered(Source):
    """Another source under a `Subset`'s indices."""

    def __init__(self, inner: Source, subset: Any, indices: np.ndarray):
        self.inner = inner
        self.subset = subset
        self.parts = (subset.dataset, subset.indices, len(subset.indices))
        self.indices = indices
        self.size = len(indices)
        if self.size and (indices.min() < 0 or indices.max() >= inner.size):
            self.size = 0                 # left to the dataset, which knows what to say

    def fetch(self, indices: np.ndarray, stream: rng.BatchStream | None) -> list[Any]:
        return self.inner.fetch(self.indices[indices], stream)

    @property
    def random(self) -> bool:
        return self.inner.random

    def current(self) -> bool:
        subset = self.subset
        dataset, indices, n = self.parts
        return (subset.dataset is dataset and subset.indices is indices and len(indices) == n
                and self.inner.current())


def source_of(dataset: Any) -> Source | None:
    """A source for this dataset, or None if it must be asked sample by sample."""
    if not declares(type(dataset), "_batch_source", ("__getitem__", "__getitems__")):
        return None
    return dataset._batch_source()                             # type: ignore[no-any-return]


def batches_at_once(dataset: Any, batch_sampler: Any, collate_fn: Any,
                    seed: int, slow: Any) -> Iterator[Any] | None:
    """An iterator over the epoch's batches made at once, or None where they cannot be.

    `slow` makes a batch sample by sample: `slow(indices, position)`.
    """
    if collate_fn is not default_collate or not untouched():
        return None
    source = source_of(dataset)
    if source is None or not source.size:
        return None
    order = order_of(batch_sampler)
    if order is None:
        return None
    n, size = len(order), batch_sampler.batch_size
    if batch_sampler.drop_last:
        n -= n % size
    fits = n == 0 or (order.min() >= 0 and order.max() < source.size)
    return _run(source, order, n, size, seed, slow, bool(fits))


def _run(source: Source, order: np.ndarray, n: int, size: int, seed: int, slow: Any,
         at_once: bool) -> Iterator[Any]:
    for start in range(0, n, size):
        indices = order[start:min(start + size, n)]
        at_once = at_once and source.current()
        batch = None
        if at_once:
            places = None
            if source.random:
                places = rng.BatchStream(
                    seed, np.arange(start, start + len(indices), dtype=np.uint64))
            try:
                batch = source.fetch(indices, places)
            except Exception:            # single samples are right, or say better what is wrong
                at_once = False
        yield slow(indices.tolist(), start) if batch is None else batch


class _MapFetcher:
    """Batches of a map-style dataset, sample by sample."""

    def __init__(self, dataset: Any, auto_collation: bool, collate_fn: Any, seed: int):
        self.dataset = dataset
        self.auto_collation = auto_collation
        self.collate_fn = collate_fn
        self.seed = seed

    def fetch(self, indices: Any, position: int) -> Any:
        """The batch of `indices`; its first sample is the `position`-th of the epoch."""
        with rng.streaming(rng.SampleStream(self.seed, position)) as stream:
            if not self.auto_collation:
                return self.collate_fn(self.dataset[indices])
            many = getattr(self.dataset, "__getitems__", None)
            if many:
                data = many(indices)
            else:
                data = []
                for k, index in enumerate(indices):
                    stream.move(k)
                    data.append(self.dataset[index])
            return self.collate_fn(data)


class _StreamFetcher:
    """Batches of an iterable dataset; `indices` only says how many samples are wanted."""

    def __init__(self, dataset: Any, auto_collation: bool, collate_fn: Any, seed: int,
                 drop_last: bool):
        self.auto_collation = auto_collation
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.ended = False
        self.stream = rng.SampleStream(seed)
        with rng.streaming(self.stream):
            self.samples = iter(dataset)

    def fetch(self, indices: Any, position: int) -> Any:
        """The next batch; `StopIteration` at the end of the data."""
        if self.ended:
            raise StopIteration
        # One stream runs on through the samples: a dataset may transform ahead of yielding.
        with rng.streaming(self.stream):
            if not self.auto_collation:
                return self.collate_fn(next(self.samples))
            data = []
            for _ in indices:
                try:
                    data.append(next(self.samples))
                except StopIteration:
                    self.ended = True
                    break
            if not data or (self.drop_last and len(data) < len(indices)):
                raise StopIteration
            return self.collate_fn(data)


def make_fetcher(dataset: Any, iterable: bool, auto_collation: bool, collate_fn: Any, seed: int,
                 drop_last: bool) -> Any:
    """What turns indices into batches for this kind of dataset."""
    if iterable:
        return _StreamFetcher(dataset, auto_collation, collate_fn, seed, drop_last)
    return _MapFetcher(dataset, auto_collation, collate_fn, seed)
