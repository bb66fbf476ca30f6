"""Datasets and samplers."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import Count, Numbers

import facula
from facula.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)


def test_tensor_dataset() -> None:
    data = TensorDataset(facula.arange(6).reshape(3, 2), facula.tensor([1, 2, 3]))
    assert len(data) == 3
    x, y = data[1]
    assert x.tolist() == [2, 3] and y.item() == 2
    assert data[-1][1].item() == 3
    with pytest.raises(AssertionError, match="Size mismatch between tensors"):
        TensorDataset(facula.zeros(2), facula.zeros(3))


def test_concat_and_add() -> None:
    data = Numbers(3) + Numbers(2)
    assert isinstance(data, ConcatDataset) and len(data) == 5
    assert [data[i][0] for i in range(5)] == [0, 1, 2, 0, 1]
    assert data[-1][0] == 1 and data.cumulative_sizes == [3, 5]
    with pytest.raises(ValueError, match="absolute value of index"):
        data[-6]
    with pytest.raises(IndexError):
        data[5]
    with pytest.raises(AssertionError):
        ConcatDataset([])
    with pytest.raises(AssertionError):
        ConcatDataset([Count(3)])


def test_chain() -> None:
    data = Count(2) + Count(3)
    assert isinstance(data, ChainDataset) and list(data) == [0, 1, 0, 1, 2]
    with pytest.raises(TypeError):
        len(data)


def test_stack() -> None:
    assert StackDataset(Numbers(2), Numbers(2))[1][0][0] == 1
    assert StackDataset(a=Numbers(2))[0]["a"][0] == 0
    with pytest.raises(ValueError, match="Size mismatch"):
        StackDataset(Numbers(2), Numbers(3))


def test_subset() -> None:
    data = Subset(Numbers(10), [7, 3, 3])
    assert len(data) == 3 and [data[i][0] for i in range(3)] == [7, 3, 3]
    assert [s[0] for s in data.__getitems__([2, 0])] == [3, 7]
    nested = Subset(data, [1])
    assert nested[0][0] == 3


def test_random_split() -> None:
    parts = random_split(Numbers(10), [3, 7])
    assert [len(p) for p in parts] == [3, 7]
    assert sorted(i for p in parts for i in p.indices) == list(range(10))
    assert [len(p) for p in random_split(Numbers(10), [0.33, 0.33, 0.34])] == [4, 3, 3]
    with pytest.raises(ValueError, match="Sum of input lengths"):
        random_split(Numbers(10), [3, 8])
    with pytest.raises(ValueError, match="Sum of input lengths"):
        random_split(Numbers(10), [0.2, 0.3])
    with pytest.raises(ValueError, match="not between 0 and 1"):
        random_split(Numbers(10), [1.5, -0.5])
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        random_split(Numbers(3), [0.99, 0.01])

    def of(seed):
        return random_split(Numbers(30), [10, 20], facula.Generator().manual_seed(seed))[0].indices
    assert of(1) == of(1) != of(2)


def test_sequential_and_random() -> None:
    assert list(SequentialSampler(range(4))) == [0, 1, 2, 3]
    sampler = RandomSampler(range(100))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == list(range(100)) and first != second
    facula.manual_seed(5)
    a = list(sampler)
    facula.manual_seed(5)
    assert a == list(sampler)
    assert all(type(i) is int for i in a)


def test_random_sampler_options() -> None:
    g = facula.Generator().manual_seed(1)
    many = list(RandomSampler(range(5), replacement=True, num_samples=1000, generator=g))
    counts = np.bincount(many, minlength=5)
    assert len(counts) == 5 and counts.min() > 140
    longer = list(RandomSampler(range(5), num_samples=12))
    assert len(longer) == 12 and sorted(longer[:5]) == sorted(longer[5:10]) == list(range(5))
    assert len(list(RandomSampler(range(5), num_samples=3))) == 3
    assert list(RandomSampler([])) == []
    with pytest.raises(TypeError, match="replacement should be a boolean"):
        RandomSampler(range(3), replacement=1)
    for bad in (0, -1, 1.5):
        with pytest.raises(ValueError, match="num_samples should be a positive"):
            RandomSampler(range(3), num_samples=bad)


def test_every_order_is_as_likely() -> None:
    g = facula.Generator().manual_seed(0)
    orders = [tuple(RandomSampler(range(3), generator=g)) for _ in range(3000)]
    counts = [orders.count(o) for o in set(orders)]
    assert len(counts) == 6 and min(counts) > 420 and max(counts) < 580


def test_subset_random() -> None:
    keys = ["a", "b", "c", "d"]
    assert sorted(SubsetRandomSampler(keys)) == keys
    assert len(SubsetRandomSampler([4, 5])) == 2
    assert list(SubsetRandomSampler([])) == []


def test_weighted() -> None:
    g = facula.Generator().manual_seed(2)
    drawn = list(WeightedRandomSampler([0.0, 1.0, 3.0, 0.0], 4000, generator=g))
    counts = np.bincount(drawn, minlength=4)
    assert counts[0] == counts[3] == 0 and 900 < counts[1] < 1100
    once = list(WeightedRandomSampler(facula.tensor([0.0, 1.0, 2.0, 1.0]), 3, replacement=False))
    assert sorted(once) == [1, 2, 3]
    heavy = [next(iter(WeightedRandomSampler([1.0, 9.0], 1, False, g))) for _ in range(1000)]
    assert 850 < sum(heavy) < 950
    for weights, n, again in (([1.0], 0, True), ([[1.0]], 1, True), ([0.0], 1, True),
                              ([-1.0, 2.0], 1, True), ([1.0, 0.0], 2, False),
                              ([float("nan")], 1, True), ([1.0], 1, 1)):
        with pytest.raises(ValueError):
            WeightedRandomSampler(weights, n, again)


def test_batch_sampler() -> None:
    inner = SequentialSampler(range(7))
    assert list(BatchSampler(inner, 3, False)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(BatchSampler(inner, 3, True)) == [[0, 1, 2], [3, 4, 5]]
    assert len(BatchSampler(inner, 3, False)) == 3 and len(BatchSampler(inner, 3, True)) == 2
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="batch_size should be a positive"):
            BatchSampler(inner, bad, False)
    with pytest.raises(ValueError, match="drop_last should be a boolean"):
        BatchSampler(inner, 2, 1)


def test_base_classes_say_what_is_missing() -> None:
    with pytest.raises(NotImplementedError):
        Dataset()[0]
