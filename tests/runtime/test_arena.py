"""The memory for temporaries that large programs share."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

import facula
from facula import config
from facula.runtime import arena


@pytest.fixture(autouse=True)
def compiled():
    with config.override(INTERPRET=False):
        yield


def chain(x, times=3):
    """Temporaries of a megabyte and more: sums along both dimensions between products."""
    for _ in range(times):
        x = (x @ x).softmax(1)
        x = x - x.mean(0)
    return x


def expected(x, times=3):
    x = x.astype(np.float64)
    for _ in range(times):
        y = x @ x
        e = np.exp(y - y.max(1, keepdims=True))
        x = e / e.sum(1, keepdims=True)
        x = x - x.mean(0)
    return x


def data(n, seed=0):
    return (np.random.default_rng(seed).normal(size=(n, n)) / n).astype("f4")


def test_programs_of_several_sizes_in_turn():
    sizes = (600, 700, 520, 900, 600, 900, 520)
    for n in sizes:
        x = data(n)
        got = chain(facula.tensor(x)).numpy()
        assert np.allclose(got, expected(x), atol=1e-6)
    buffer = arena.SHARED.buffer
    assert buffer is not None and buffer.nbytes == max(arena.SHARED._needs.values())


def test_memory_grows_under_a_program_that_has_run():
    small, large = facula.tensor(data(550)), facula.tensor(data(1000))
    first = chain(small).numpy().copy()
    chain(large).numpy()
    assert np.array_equal(chain(small).numpy(), first)


def test_it_goes_with_the_last_program():
    own = arena.Arena()

    class Program:
        pass
    a, b = Program(), Program()
    own.enter(a, 1 << 20)
    first = own.address()
    assert own.address() == first
    own.enter(b, 4 << 20)
    assert own.address() and own.buffer.nbytes == 4 << 20
    own.leave(b)
    assert own.buffer is not None
    own.leave(a)
    own.leave(a)
    assert own.buffer is None


def test_programs_that_are_gone_need_nothing():
    before = len(arena.SHARED._needs)
    x = facula.tensor(data(640))
    call = facula.compile(lambda t: chain(t, 2) + 0.5)
    call(x).numpy(), call(x).numpy()
    assert len(arena.SHARED._needs) > before
    del call
    facula.graph.record.recorder().root.edges.clear()
    gc.unfreeze()                               # it hangs together with what is older
    gc.collect()
    assert len(arena.SHARED._needs) <= before


def test_threads_take_turns():
    wanted = {n: expected(data(n)) for n in (530, 610, 700)}
    wrong = []

    def work(n):
        x = facula.tensor(data(n))
        for _ in range(6):
            if not np.allclose(chain(x).numpy(), wanted[n], atol=1e-6):
                wrong.append(n)
    workers = [threading.Thread(target=work, args=(n,)) for n in wanted for _ in range(2)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_in_the_background():
    def steps(between):
        facula.manual_seed(0)
        x = facula.tensor(data(600), requires_grad=True)
        optimizer = facula.optim.SGD([x], lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            chain(x, 2).pow(2).sum().backward()
            optimizer.step()
            between()
        return x.detach().numpy().copy()
    other = facula.tensor(data(720))
    alone = steps(lambda: None)
    assert np.array_equal(steps(lambda: chain(other)._peek()), alone)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork():
    x = facula.tensor(data(600))
    first = chain(x).numpy().copy()
    child = os.fork()
    if not child:
        same = np.array_equal(chain(x).numpy(), first)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
