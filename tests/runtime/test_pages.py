"""Blocks cut from regions of large pages: they do not overlap, and memory goes back."""

from __future__ import annotations

import gc
import mmap
import os
import random
import threading
import weakref

import numpy as np
import pytest

import facula
from facula.runtime import allocator, pages

if not hasattr(mmap, "MADV_HUGEPAGE"):
    pytest.skip("this system has no large pages to ask for", allow_module_level=True)

MB = 1 << 20


def _cut(size):
    """A block as the allocator holds it: its place is freed when the array is gone."""
    array, place = pages.take(size)
    weakref.finalize(array, place.free)
    return array


def _address(array):
    return array.__array_interface__["data"][0]


def test_small_blocks_are_not_cut():
    assert pages.take(pages.LEAST - 1) is None


@pytest.mark.parametrize("size", [pages.LEAST, pages.LEAST + 1, 5 * MB + 3, 16 * MB, 40 * MB])
def test_a_block_is_all_there(size):
    block = _cut(size)
    assert block.nbytes >= size and _address(block) % 64 == 0
    block[:] = 7
    assert block[0] == 7 and block[-1] == 7


def test_what_fills_a_region_begins_on_a_large_page():
    assert _address(_cut(40 * MB)) % pages.PAGE == 0


def test_blocks_taken_and_freed_in_any_order_do_not_overlap():
    rng = random.Random(0)
    held = []
    for number in range(600):
        if held and rng.random() < 0.48:
            block, mark = held.pop(rng.randrange(len(held)))
            assert (block == mark).all()
            del block
        else:
            block = _cut(rng.choice([pages.LEAST, 200_001, MB, 3 * MB + 64, 17 * MB]))
            block[:] = mark = number % 251
            held.append((block, mark))
            del block
        if len(held) > 24:
            held.pop(0)
    assert all((block == mark).all() for block, mark in held)


def test_free_runs_grow_together():
    region = pages.Region(4 * MB)
    begins = [region.take(MB) for _ in range(4)]
    assert region.take(64) is None and not region.empty
    for i in (1, 3, 0, 2):
        region.give(begins[i], MB)
    assert region.empty and region.take(4 * MB) == begins[0]


def _resident(address):
    """Bytes of memory behind the mapping that holds this address."""
    inside = False
    with open("/proc/self/smaps") as file:
        for line in file:
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                low, high = (int(x, 16) for x in first.split("-"))
                inside = low <= address < high
            elif inside and first == "Rss:":
                return int(line.split()[1]) * 1024
    return 0


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="no /proc/self/smaps")
def test_freed_pages_go_back_to_the_system():
    region = pages.Region(32 * MB)
    first, second = region.take(4 * MB), region.take(20 * MB)
    memory = np.frombuffer(region.map, np.uint8)
    memory[first:first + 4 * MB] = 1
    memory[second:second + 20 * MB] = 2
    before = _resident(_address(memory) + first)
    region.give(second, 20 * MB)
    after = _resident(_address(memory) + first)
    assert before - after >= 18 * MB
    assert (memory[first:first + 4 * MB] == 1).all()


def test_a_page_that_two_blocks_share_stays_until_both_are_freed():
    region = pages.Region(8 * MB)
    a, b = region.take(3 * MB), region.take(3 * MB)
    memory = np.frombuffer(region.map, np.uint8)
    memory[a:a + 3 * MB] = 1
    memory[b:b + 3 * MB] = 2
    region.give(a, 3 * MB)
    assert (memory[b:b + 3 * MB] == 2).all()
    again = region.take(3 * MB)
    assert again == a
    memory[again:again + 3 * MB] = 3
    region.give(b, 3 * MB)
    assert (memory[again:again + 3 * MB] == 3).all()


def test_blocks_may_be_freed_by_any_thread():
    def work(seed):
        rng = random.Random(seed)
        held = []
        for _ in range(200):
            held.append(_cut(rng.choice([pages.LEAST, MB])))
            if len(held) > 5:
                shared.append(held.pop(0))
                if len(shared) > 3:
                    shared.pop(0)

    shared: list[np.ndarray] = []
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(thread.is_alive() for thread in threads)


def test_without_memory_numpy_says_so(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(12, "Cannot allocate memory")
    monkeypatch.setattr(pages.mmap, "mmap", refuse)
    assert pages.take(40 * MB) is None
    block = allocator.empty(50 * MB + 64)           # NumPy's memory then
    assert block.ptr % 64 == 0


def test_an_array_of_a_freed_tensor_keeps_its_block():
    x = facula.full((300, 1000), 3.0)
    seen = x.numpy()[5:]
    del x
    gc.collect()
    others = [facula.full((300, 1000), float(i)) for i in range(8)]
    assert [float(o[0, 0]) for o in others] == [float(i) for i in range(8)]
    assert (seen == 3.0).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_memory_of_its_own():
    block = _cut(MB)
    block[:] = 1
    child = os.fork()
    if child == 0:
        block[:] = 2
        _cut(MB)[:] = 3
        os._exit(0 if (block == 2).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (block == 1).all()
