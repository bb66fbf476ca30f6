"""Programs in the background: what waits for them, and what happens when they fail."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import facula
from facula import nn, optim
from facula.runtime import flight
from facula.runtime.threads import get_num_threads, set_num_threads


class Training:
    """A network whose step is worth running in the background."""

    def __init__(self) -> None:
        facula.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 10))
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss()
        self.x = facula.randn(64, 300)
        self.y = facula.randint(0, 10, (64,))

    def step(self, y: facula.Tensor | None = None) -> facula.Tensor:
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(self.x), self.y if y is None else y)
        loss.backward()
        self.optimizer.step()
        return loss

    def weights(self) -> np.ndarray:
        return np.concatenate([p.detach().numpy().copy().ravel()
                               for p in self.model.parameters()])


@pytest.fixture
def two_threads():
    before = get_num_threads()
    set_num_threads(2)
    yield
    set_num_threads(before)


def test_a_step_takes_off_and_a_look_lands_it(two_threads: None) -> None:
    t = Training()
    for _ in range(10):
        loss = t.step()
    if flight.current is None:
        pytest.skip("no pool to run in the background of")
    assert np.isfinite(loss.item())
    assert flight.current is None


def test_the_same_values_as_without(two_threads: None) -> None:
    for _ in range(3):      # then all of it is compiled: the interpreter may differ in a last bit
        t = Training()
        for _ in range(4):
            t.step().item()
    results = []
    for n in (1, 2):
        set_num_threads(n)
        t = Training()
        losses = [t.step() for _ in range(8)]
        results.append((np.array([v.item() for v in losses]), t.weights()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_a_bad_target_raises_late_and_loses_nothing(two_threads: None) -> None:
    t = Training()
    for _ in range(10):
        t.step().item()
    before = t.weights()
    bad = t.y.clone()
    bad[3] = 99
    with pytest.raises(IndexError, match="99"):
        t.step(bad)
        t.step()
    assert flight.current is None
    np.testing.assert_array_equal(t.weights(), before)
    for _ in range(3):
        loss = t.step()
    assert np.isfinite(loss.item())


def test_threads_and_a_fork_while_one_is_under_way(two_threads: None) -> None:
    t = Training()
    for _ in range(10):
        loss = t.step()
    errors = []

    def other() -> None:
        try:
            mine = Training()
            for _ in range(10):
                mine.step()
            assert np.isfinite(mine.weights()).all()
        except BaseException as error:          # shown by the assertion below
            errors.append(error)

    workers = [threading.Thread(target=other) for _ in range(2)]
    for w in workers:
        w.start()
    for _ in range(10):
        loss = t.step()
    for w in workers:
        w.join()
    assert not errors
    t.step()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if np.isfinite(t.step().item()) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.isfinite(loss.item())
