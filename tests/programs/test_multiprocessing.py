"""`facula.multiprocessing`: Python's, with what PyTorch adds."""

import pytest

import facula
import facula.multiprocessing as mp


def _double(rank, queue):
    queue.put((rank, (facula.arange(3.0) * (rank + 1)).numpy()))


def _fail(rank):
    raise SystemExit(3)


def test_processes_send_arrays():
    queue = mp.get_context("spawn").Queue()
    found = mp.spawn(_double, (queue,), 2, join=False)
    got = dict(queue.get(timeout=60) for _ in found)
    for p in found:
        p.join()
    assert {k: v.tolist() for k, v in got.items()} == {0: [0, 1, 2], 1: [0, 2, 4]}


def test_a_failure_is_reported():
    with pytest.raises(RuntimeError, match="exit code 3"):
        mp.spawn(_fail, nprocs=1)


def test_settings():
    mp.set_sharing_strategy("file_system")
    assert mp.get_sharing_strategy() in mp.get_all_sharing_strategies()
    with pytest.raises(ValueError, match="telepathy"):
        mp.set_sharing_strategy("telepathy")
    assert mp.cpu_count() >= 1 and mp.Process is not None
