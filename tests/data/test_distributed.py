"""The part of a data set that one of several processes sees."""

import pytest

from facula.utils.data import DataLoader
from facula.utils.data.distributed import DistributedSampler


@pytest.mark.parametrize("n, replicas, drop", [(10, 3, False), (10, 3, True), (9, 3, False),
                                               (2, 5, False), (7, 1, True)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_all_is_seen(n, replicas, drop, shuffle):
    parts = [DistributedSampler(range(n), replicas, r, shuffle, drop_last=drop)
             for r in range(replicas)]
    found = [list(p) for p in parts]
    assert {len(f) for f in found} == {len(parts[0])}
    seen = [i for f in found for i in f]
    if drop and n % replicas:
        assert len(seen) == len(set(seen)) == n // replicas * replicas
    else:
        assert set(seen) == set(range(n)) and len(seen) - n < replicas
    if not shuffle:
        assert found[0] == [i % n for i in range(0, len(seen), replicas)]


def test_epochs_differ_and_repeat():
    sampler = DistributedSampler(range(50), 2, 1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_in_a_loader():
    sampler = DistributedSampler(range(10), 2, 0, shuffle=False)
    assert [b.tolist() for b in DataLoader(range(10), 2, sampler=sampler)] == [[0, 2], [4, 6], [8]]


def test_who_it_is_has_to_be_said():
    with pytest.raises(RuntimeError, match="num_replicas and rank"):
        DistributedSampler(range(3))
    with pytest.raises(ValueError, match="Invalid rank 2"):
        DistributedSampler(range(3), 2, 2)
