"""Memory of temporaries: taken no sooner than it is written to, and counted."""

from __future__ import annotations

import gc
import threading

import numpy as np

import facula
from facula import profiler
from facula.runtime import allocator
from facula.schedule.compile import build
from tests.schedule.programs import Build


def test_a_chain_of_products_takes_the_memory_of_a_few() -> None:
    """Each value is read by the next alone, and each weight is packed just before it is wanted."""
    rng, n, length = np.random.default_rng(0), 128, 12
    b = Build()
    x = b.leaf(rng.normal(size=(n, n)).astype(np.float32))
    for _ in range(length):
        weight = b.leaf((rng.normal(size=(n, n)) / n ** 0.5).astype(np.float32))
        turned = b.op("permute", weight, attrs=((1, 0),))
        x = b.op("tanh", b.op("matmul", x, turned))
    executable = b.check(x)
    plan = build(executable.steps, executable.outputs, {}).plan
    assert len(plan.phases) >= length
    assert plan.arena_bytes <= 6 * (4 * n * n + 4096) < length * 4 * n * n


def test_the_peak_is_counted() -> None:
    gc.collect()
    profiler.reset_peak_memory()
    before = profiler.memory()
    assert before.peak == before.taken >= before.cached >= 0
    x = facula.ones(20 << 20, dtype=facula.uint8) + 1
    assert x[0].item() == 2
    now = profiler.memory()
    assert now.taken - now.cached >= before.taken - before.cached + (20 << 20)
    assert now.peak >= now.taken and "MB taken" in str(now)
    big = facula.ones(100 << 20, dtype=facula.uint8) + 1        # too large to be kept
    assert big[0].item() == 2
    del big
    gc.collect()
    assert profiler.memory().peak >= profiler.memory().taken + (100 << 20)


def test_bytes_are_counted_right_whoever_takes_and_gives_them_back() -> None:
    def work() -> None:
        for _ in range(300):
            held = [allocator.empty((64 << 20) + 1) for _ in range(3)]      # too large to be kept
            del held

    gc.collect()
    before = profiler.memory().taken
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert profiler.memory().taken == before


def test_a_buffer_in_a_cycle_leaves_its_block_counted() -> None:
    gc.collect()
    gc.disable()
    try:
        allocator.release_cached()          # so that the block is a new one
        before = profiler.memory().taken
        size = 12_345_678
        cycle: list[object] = [allocator.empty(size)]
        cycle.append(cycle)
        taken = profiler.memory().taken
        assert taken >= before + size
        del cycle
        gc.collect()                # the buffer goes, and its block waits in a free list
        assert profiler.memory().taken == taken
    finally:
        gc.enable()
