"""The loader in one process, and its arguments."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import Count, Noise, Numbers, Told, to_list

import facula
import facula.utils.data
from facula.data import BatchSampler, DataLoader, SequentialSampler, Subset, TensorDataset


def joined(lists):
    return [x for part in lists for x in part]


def firsts(loader):
    return [batch[0].tolist() for batch in loader]


def test_the_name_that_programs_look_for() -> None:
    assert facula.utils.data.DataLoader is DataLoader


def test_batches() -> None:
    loader = DataLoader(Numbers(7), batch_size=3)
    assert len(loader) == 3
    assert firsts(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    i, array, tensor = next(iter(loader))
    assert i.dtype is facula.int64 and array.shape == (3, 3) and tensor.shape == (3, 1)
    assert firsts(DataLoader(Numbers(7), batch_size=3, drop_last=True)) == [[0, 1, 2], [3, 4, 5]]


def test_without_batching() -> None:
    loader = DataLoader(Numbers(3), batch_size=None)
    samples = list(loader)
    assert len(loader) == 3 and [s[0] for s in samples] == [0, 1, 2]
    assert isinstance(samples[0][1], facula.Tensor)


def test_shuffle_follows_the_seed() -> None:
    data = TensorDataset(facula.arange(100))
    loader = DataLoader(data, batch_size=10, shuffle=True)
    facula.manual_seed(1)
    a, b = firsts(loader), firsts(loader)
    facula.manual_seed(1)
    assert firsts(loader) == a != b
    assert sorted(joined(a)) == list(range(100))
    g = facula.Generator()
    own = DataLoader(data, batch_size=10, shuffle=True, generator=g.manual_seed(3))
    first = firsts(own)
    facula.manual_seed(99)
    g.manual_seed(3)
    assert firsts(own) == first


def test_samplers_are_used() -> None:
    assert firsts(DataLoader(Numbers(5), batch_size=2, sampler=[4, 0, 2])) == [[4, 0], [2]]
    assert firsts(DataLoader(Numbers(5), batch_sampler=[[1], [2, 3]])) == [[1], [2, 3]]
    batches = BatchSampler(SequentialSampler(range(5)), 4, False)
    loader = DataLoader(Numbers(5), batch_sampler=batches)
    assert loader.batch_size is None and firsts(loader) == [[0, 1, 2, 3], [4]]


def test_collate_fn() -> None:
    assert list(DataLoader(Count(5), batch_size=2, collate_fn=to_list)) == [[0, 1], [2, 3], [4]]


def test_iterable() -> None:
    loader = DataLoader(Count(5), batch_size=2)
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Count(5), batch_size=2, drop_last=True)] == [[0, 1],
                                                                                       [2, 3]]
    assert list(DataLoader(Count(3), batch_size=None)) == [0, 1, 2]
    with pytest.raises(TypeError):
        len(loader)
    assert len(DataLoader(Told(5, 5), batch_size=2)) == 3
    with pytest.warns(UserWarning, match="reported to be 1 batches"):
        list(DataLoader(Told(5, 2), batch_size=2))


@pytest.mark.parametrize("arguments, error, message", [
    (dict(num_workers=-1), ValueError, "num_workers option should be non-negative"),
    (dict(timeout=-1), ValueError, "timeout option should be non-negative"),
    (dict(prefetch_factor=2), ValueError, "prefetch_factor option could only be"),
    (dict(num_workers=1, prefetch_factor=-1), ValueError, "prefetch_factor option should"),
    (dict(persistent_workers=True), ValueError, "persistent_workers option needs"),
    (dict(sampler=[0], shuffle=True), ValueError, "sampler option is mutually exclusive"),
    (dict(batch_sampler=[[0]], batch_size=2), ValueError, "batch_sampler option is mutually"),
    (dict(batch_size=None, drop_last=True), ValueError, "batch_size=None option disables"),
    (dict(batch_size=0), ValueError, "batch_size should be a positive integer"),
    (dict(multiprocessing_context="fork"), ValueError, "can only be used with multi-process"),
    (dict(num_workers=1, multiprocessing_context="no"), ValueError, "valid start method"),
    (dict(num_workers=1, multiprocessing_context=3), TypeError, "valid context object"),
])
def test_arguments_are_checked(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        DataLoader(Numbers(3), **arguments)


@pytest.mark.parametrize("name, value", [("shuffle", True), ("sampler", [0]),
                                         ("batch_sampler", [[0]])])
def test_iterable_takes_no_order(name, value) -> None:
    with pytest.raises(ValueError, match=f"expected unspecified {name} option"):
        DataLoader(Count(3), **{name: value})


def test_what_must_not_change() -> None:
    loader = DataLoader(Numbers(3))
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset"):
        with pytest.raises(ValueError, match="should not be set after DataLoader is initialized"):
            setattr(loader, name, None)


def test_an_error_stays_what_it_was() -> None:
    data = Subset(TensorDataset(facula.zeros(3)), [0, 1, 7])
    with pytest.raises(IndexError):
        list(DataLoader(data, batch_size=2))
    with pytest.raises(IndexError):
        list(DataLoader(TensorDataset(facula.zeros(3)), batch_size=2, sampler=[5]))


def test_tensors_at_once_and_one_by_one_are_the_same() -> None:
    data = TensorDataset(facula.rand(20, 3), facula.arange(20), facula.rand(20).to(facula.bfloat16),
                         facula.rand(4, 20).t())
    parts = Subset(data, list(range(19, -1, -2)))
    for chosen in (data, parts, Subset(parts, [3, -1])):
        quick = DataLoader(chosen, batch_size=4, shuffle=True)
        single = DataLoader(chosen, batch_size=4, shuffle=True,
                            collate_fn=lambda b: facula.utils.data.default_collate(b))
        facula.manual_seed(0)
        a = list(quick)
        facula.manual_seed(0)
        b = list(single)
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert type(x) is type(y) and len(x) == len(y) == 4
            for s, t in zip(x, y):
                assert s.dtype is t.dtype and s.shape == t.shape
                assert bool((s == t).all())


def test_writes_between_batches_are_seen() -> None:
    x = facula.zeros(4)
    batches = iter(DataLoader(TensorDataset(x), batch_size=2))
    assert next(batches)[0].tolist() == [0.0, 0.0]
    x.fill_(5.0)
    assert next(batches)[0].tolist() == [5.0, 5.0]


def test_batches_do_not_alias_the_data() -> None:
    x = facula.zeros(4)
    batch, = next(iter(DataLoader(TensorDataset(x), batch_size=2)))
    batch.add_(1.0)
    assert x.tolist() == [0.0] * 4


def test_gradients_through_a_dataset() -> None:
    w = facula.ones(4, requires_grad=True)
    for (part,) in DataLoader(TensorDataset(w), batch_size=2):
        part.sum().backward()
    assert w.grad.tolist() == [1.0] * 4


def test_random_numbers_of_samples() -> None:
    facula.manual_seed(4)
    a = [b[1].tolist() for b in DataLoader(Noise(6), batch_size=2)]
    facula.manual_seed(4)
    assert [b[1].tolist() for b in DataLoader(Noise(6), batch_size=2)] == a
    facula.manual_seed(4)
    assert joined(b[1].tolist() for b in DataLoader(Noise(6), batch_size=5)) == joined(a)
    assert len(set(joined(a))) == 6
    repeated = next(iter(DataLoader(Noise(6), batch_size=4, sampler=[2, 2, 2, 2])))
    assert len(set(repeated[1].tolist())) == 4
    assert np.all(np.array(joined(a)) < 1.0)


def test_iterators_are_independent() -> None:
    loader = DataLoader(Numbers(4), batch_size=2)
    a, b = iter(loader), iter(loader)
    assert next(a)[0].tolist() == next(b)[0].tolist() == [0, 1]
    assert len(a) == 2


def test_an_epoch_longer_than_memory() -> None:
    data = facula.data.TensorDataset(facula.arange(10))
    facula.manual_seed(3)
    endless = facula.data.RandomSampler(data, replacement=True, num_samples=10 ** 10)
    loader = facula.data.DataLoader(data, batch_size=4, sampler=endless)
    assert len(loader) == 25 * 10 ** 8
    first = [b.tolist() for (b,), _ in zip(loader, range(3))]
    facula.manual_seed(3)
    few = facula.data.RandomSampler(data, replacement=True, num_samples=12)
    loader = facula.data.DataLoader(data, batch_size=4, sampler=few)
    assert [b.tolist() for (b,) in loader] == first


def test_random_indices_in_pieces(monkeypatch) -> None:
    monkeypatch.setattr("facula.data.sampler._PIECE", 7)
    for replacement in (True, False):
        sampler = facula.data.RandomSampler(range(5), replacement, num_samples=23)
        facula.manual_seed(1)
        found = list(sampler)
        facula.manual_seed(1)
        assert sampler._order().tolist() == found and len(found) == 23
        assert set(found) == set(range(5))
        if not replacement:
            assert sorted(found[5:10]) == list(range(5))
