"""Worker processes: order, errors, deaths, seeds, endings."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import time

import numpy as np
import pytest
import worlds
from worlds import Broken, Count, Deadly, Leaving, Noise, Numbers, Sleepy, Slow, Where

import facula
from facula.data import DataLoader, TensorDataset, get_worker_info
from facula.data.worker import ExceptionWrapper, pack, unpack

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
METHODS = [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("method", METHODS)
def test_same_batches_as_without(method) -> None:
    def rows(**options):
        return [[t.tolist() for t in b] for b in DataLoader(Numbers(7), batch_size=2, **options)]
    assert rows(num_workers=2, multiprocessing_context=method) == rows()


@pytest.mark.parametrize("method", METHODS)
def test_tensors_reach_the_workers(method) -> None:
    data = TensorDataset(facula.arange(6).reshape(3, 2), facula.ones(3, dtype=facula.bfloat16))
    loader = DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context=method)
    x, y = next(iter(loader))
    assert x.tolist() == [[0, 1], [2, 3]] and y.dtype is facula.bfloat16


def test_order_is_kept_or_not() -> None:
    options = dict(batch_size=None, num_workers=3, multiprocessing_context="fork")
    assert list(DataLoader(Slow(12), **options)) == list(range(12))
    assert sorted(DataLoader(Slow(12), in_order=False, **options)) == list(range(12))


def test_random_numbers_do_not_depend_on_workers() -> None:
    rows = []
    for options in (dict(), dict(num_workers=1), dict(num_workers=3, prefetch_factor=1)):
        facula.manual_seed(8)
        loader = DataLoader(Noise(9), batch_size=2, shuffle=True, **options)
        rows.append([[t.tolist() for t in b] for b in loader])
    assert rows[0] == rows[1] == rows[2]


def test_worker_info_and_seeds() -> None:
    assert get_worker_info() is None
    facula.manual_seed(0)
    loader = DataLoader(Where(8), batch_size=1, num_workers=2)
    rows = [[t.item() for t in b] for b in loader]
    assert [r[0] for r in rows] == list(range(8))
    assert [r[1] for r in rows] == [0, 1] * 4
    assert len({r[2] for r in rows}) == 2 and os.getpid() not in {r[2] for r in rows}
    assert {r[3] for r in rows} == {2}
    assert len({r[4] for r in rows}) == 8              # NumPy is seeded differently in each
    facula.manual_seed(0)
    assert [b[4].item() for b in loader] == [r[4] for r in rows]


def test_iterable_in_parts() -> None:
    loader = DataLoader(Count(10), batch_size=2, num_workers=3)
    assert sorted(i for b in loader for i in b.tolist()) == list(range(10))
    uneven = DataLoader(Count(2), batch_size=2, num_workers=4)
    assert sorted(i for b in uneven for i in b.tolist()) == [0, 1]


@pytest.mark.parametrize("method, error", [("fork", ValueError), ("fork", KeyError),
                                           ("fork", ZeroDivisionError), ("spawn", ValueError)])
def test_errors_are_shown_whole(method, error) -> None:
    loader = DataLoader(Broken(error), batch_size=2, num_workers=1,
                        multiprocessing_context=method)
    batches = iter(loader)
    assert next(batches).tolist() == [0, 1]
    with pytest.raises(error) as caught:
        next(batches)
    text = str(caught.value)
    assert text.startswith(f"Caught {error.__name__} in DataLoader worker process 0.\nOriginal Tr")
    assert "worlds.py" in text and 'raise self.error("a bad sample")' in text
    assert "\n" in text                                  # KeyError too shows lines as lines
    assert next(batches).tolist() == [4, 5]              # and loading goes on


def test_error_that_cannot_be_made_again() -> None:
    try:
        raise worlds.TwoArguments(1, 2)
    except worlds.TwoArguments as error:
        wrapped = unpack(pack(ExceptionWrapper(error, "in a test")))
    with pytest.raises(RuntimeError, match="Caught TwoArguments in a test"):
        wrapped.reraise()

    class Local(Exception):
        pass
    try:
        raise Local("here")
    except Local as error:
        wrapped = unpack(pack(ExceptionWrapper(error, "in a test")))
    with pytest.raises(RuntimeError, match="Caught Local in a test"):
        wrapped.reraise()


def test_error_at_the_start() -> None:
    loader = DataLoader(Numbers(4), num_workers=1, worker_init_fn=worlds.fail_to_start)
    with pytest.raises(ValueError, match="no start for 0"):
        next(iter(loader))


def test_init_fn() -> None:
    class Noted(Numbers):
        def __getitem__(self, i):
            return self.n_noted
    loader = DataLoader(Noted(4), batch_size=1, num_workers=2, worker_init_fn=worlds.note)
    assert [b.item() for b in loader] == [0, 1, 0, 1]


def test_result_that_cannot_travel() -> None:
    loader = DataLoader(Numbers(2), num_workers=1, collate_fn=lambda batch: (lambda: batch))
    with pytest.raises(Exception, match="in DataLoader worker process 0"):
        next(iter(loader))


def test_killed_worker() -> None:
    batches = iter(DataLoader(Deadly(10), batch_size=2, num_workers=2, prefetch_factor=1))
    pids = [p.pid for p in batches._processes]
    start = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        for _ in range(5):
            next(batches)
    assert time.monotonic() - start < 30
    found = re.match(r"DataLoader worker \(pid (\d+)\) is killed by signal: SIGKILL",
                     str(caught.value))
    assert found and int(found[1]) == pids[0]
    assert all(gone(p) for p in pids)
    with pytest.raises(StopIteration):
        next(batches)


def test_worker_that_leaves() -> None:
    loader = DataLoader(Leaving(10), batch_size=2, num_workers=1)
    with pytest.raises(RuntimeError, match=r"pid \d+\) exited unexpectedly with exit code 3"):
        list(loader)


def test_timeout() -> None:
    batches = iter(DataLoader(Sleepy(3), num_workers=1, timeout=0.3))
    with pytest.raises(RuntimeError, match=r"timed out after 0\.3 seconds"):
        next(batches)
    for process in batches._processes:
        process.terminate()


def test_workers_end_with_the_epoch() -> None:
    batches = iter(DataLoader(Numbers(4), num_workers=2))
    pids = [p.pid for p in batches._processes]
    for _ in batches:
        pass
    assert all(gone(p) for p in pids)


def test_workers_end_with_the_iterator() -> None:
    big = TensorDataset(facula.zeros(64, 100_000))
    batches = iter(DataLoader(big, batch_size=4, num_workers=2, prefetch_factor=4))
    pids = [p.pid for p in batches._processes]
    next(batches)                       # the others wait in pipes that are full
    start = time.monotonic()
    del batches
    gc.collect()
    assert all(gone(p) for p in pids) and time.monotonic() - start < 30


def test_persistent_workers() -> None:
    loader = DataLoader(Where(6), batch_size=1, num_workers=2, persistent_workers=True)

    def epoch(loader):
        return [(b[0].item(), b[2].item()) for b in loader]
    first, second = epoch(loader), epoch(loader)
    assert {p for _, p in first} == {p for _, p in second}
    for _ in loader:                    # left early: what is under way must not turn up later
        break
    assert [i for i, _ in epoch(loader)] == list(range(6))
    pids = {p for _, p in first}
    del loader
    gc.collect()
    assert all(gone(p) for p in pids)


def test_persistent_iterable() -> None:
    loader = DataLoader(Count(5), batch_size=2, num_workers=2, persistent_workers=True)
    for _ in range(2):
        assert sorted(i for b in loader for i in b.tolist()) == list(range(5))


def test_large_batches_and_arrays() -> None:
    data = TensorDataset(facula.arange(300_000).reshape(3, 100_000))
    for k, (x,) in enumerate(DataLoader(data, batch_size=1, num_workers=1)):
        assert np.array_equal(x.numpy()[0], np.arange(100_000) + 100_000 * k)
