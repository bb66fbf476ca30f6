"""Datasets: what can be asked for a sample by number, or iterated over."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from facula.data import rng
from facula.data.arrays import is_tensor

__all__ = ["Dataset", "IterableDataset", "TensorDataset", "StackDataset", "ConcatDataset",
           "ChainDataset", "Subset", "random_split"]

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """A map from numbers (or other keys) to samples; subclasses define `__getitem__`.

    Most samplers also want `__len__`.  A subclass may define `__getitems__(indices)`, which
    returns the samples of a whole batch as a list.
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[T_co]) -> ConcatDataset[T_co]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """A stream of samples; subclasses define `__iter__`.

    With workers, each gets its own copy: use `get_worker_info()` to give each a part of the data.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")

    def __add__(self, other: Dataset[T_co]) -> ChainDataset:      # type: ignore[override]
        return ChainDataset([self, other])


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        raise TypeError(f"{type(dataset).__name__} has no length (define __len__)") from None


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Tensors [N, ...] of one length N; sample i is the tuple of their i-th entries.

    Raises `AssertionError` when the lengths differ.
    """

    tensors: tuple[Any, ...]

    def __init__(self, *tensors: Any):
        if tensors and any(t.shape[0] != tensors[0].shape[0] for t in tensors):
            raise AssertionError("Size mismatch between tensors")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])

    def _batch_source(self) -> Any:
        """See `facula.data.fetch`: batches are gathered from the tensors' arrays at once."""
        from facula.data.fetch import Gather
        if not self.tensors or any(not is_tensor(t) or t.requires_grad for t in self.tensors):
            return None
        return Gather(self.tensors)


class StackDataset(Dataset[Any]):
    """Several datasets side by side: sample i is the tuple (or dict) of their i-th samples."""

    datasets: Any

    def __init__(self, *args: Dataset[Any], **kwargs: Dataset[Any]):
        if args and kwargs:
            raise ValueError("Supported either ``tuple``- (via ``args``) or ``dict``- (via "
                             "``kwargs``) like input/output, but both types are given.")
        if not args and not kwargs:
            raise ValueError("At least one dataset should be passed")
        parts = list(args or kwargs.values())
        self._length = _length(parts[0])
        if any(_length(d) != self._length for d in parts):
            raise ValueError("Size mismatch between datasets")
        self.datasets = args or kwargs

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {k: d[index] for k, d in self.datasets.items()}
        return tuple(d[index] for d in self.datasets)

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[T_co]):
    """Datasets one after the other."""

    datasets: list[Dataset[T_co]]
    cumulative_sizes: list[int]

    @staticmethod
    def cumsum(sequence: Iterable[Any]) -> list[int]:
        """Where each dataset ends."""
        return list(itertools.accumulate(_length(d) for d in sequence))

    def __init__(self, datasets: Iterable[Dataset[Any]]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = self.cumsum(self.datasets)

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, idx: int) -> T_co:
        if idx < 0:
            if -idx > len(self):
                raise ValueError("absolute value of index should not exceed dataset length")
            idx += len(self)
        which = bisect.bisect_right(self.cumulative_sizes, idx)
        if which == len(self.datasets):
            raise IndexError(f"index {idx} is out of range for {len(self)} samples")
        return self.datasets[which][idx - (self.cumulative_sizes[which - 1] if which else 0)]


class ChainDataset(IterableDataset[Any]):
    """Streams one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]):
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        for d in self.datasets:
            if not isinstance(d, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            yield from d

    def __len__(self) -> int:
        total = 0
        for d in self.datasets:
            if not isinstance(d, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            total += _length(d)
        return total


class Subset(Dataset[T_co]):
    """The samples of a dataset at the given indices."""

    dataset: Dataset[T_co]
    indices: Sequence[int]

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, list):
            return self.dataset[[self.indices[i] for i in idx]]
        return self.dataset[self.indices[idx]]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        many = getattr(self.dataset, "__getitems__", None)
        chosen = [self.indices[i] for i in indices]
        if callable(many):
            return many(chosen)                               # type: ignore[no-any-return]
        out = []
        for k, i in enumerate(chosen):
            rng.at_sample(k)
            out.append(self.dataset[i])
        return out

    def __len__(self) -> int:
        return len(self.indices)

    def _batch_source(self) -> Any:
        """See `facula.data.fetch`."""
        from facula.data.fetch import Renumbered, source_of
        indices = rng.as_indices(self.indices)
        inner = source_of(self.dataset)
        return None if inner is None or indices is None else Renumbered(inner, self, indices)


def random_split(dataset: Dataset[T_co], lengths: Sequence[int | float],
                 generator: Any = None) -> list[Subset[T_co]]:
    """Split a dataset at random into non-overlapping parts of the given lengths.

    Fractions that sum to 1 are turned into counts by rounding down; what is left over goes one
    each to the first parts.  Raises `ValueError` when counts do not sum to the dataset's length.
    """
    n = _length(dataset)
    counts = list(lengths)
    if math.isclose(sum(counts), 1) and sum(counts) <= 1:
        sizes: list[Any] = []
        for i, fraction in enumerate(counts):
            if fraction < 0 or fraction > 1:
                raise ValueError(f"Fraction at index {i} is not between 0 and 1")
            sizes.append(math.floor(n * fraction))
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
        counts = list(sizes)
        for i, size in enumerate(sizes):
            if size == 0:
                warnings.warn(f"Length of split at index {i} is 0. This might result in an empty "
                              "dataset.", stacklevel=2)
    if sum(counts) != n:
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = rng.permutation(rng.draw_seed(generator), n).tolist()
    ends = list(itertools.accumulate(counts))
    return [Subset(dataset, order[int(end - size):int(end)]) for end, size in zip(ends, counts)]


