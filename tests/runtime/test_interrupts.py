"""Ctrl-C in the middle of a step: it is raised, late, and no value is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import facula
from facula import nn, optim
from facula.graph import flush
from facula.runtime import interrupts


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupted(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> None:
    """Every program is met by an interrupt before it runs, and by another error if one is given."""
    run = flush.Program.run

    def late(self: Any, *args: Any) -> Any:
        interrupt()
        if error is not None:
            raise error
        return run(self, *args)

    monkeypatch.setattr(flush.Program, "run", late)


def training(compiled: bool) -> tuple[nn.Module, Callable[[], Any]]:
    facula.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = facula.randn(16, 4)

    def step() -> Any:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, facula.compile(step) if compiled else step


def weights(model: nn.Module) -> list[Any]:
    return [x for p in model.parameters() for x in p.flatten().tolist()]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_is_finished_before_the_interrupt_is_raised(monkeypatch: pytest.MonkeyPatch,
                                                           compiled: bool) -> None:
    expected, step = training(compiled)
    for _ in range(6):
        step()
    model, step = training(compiled)
    for _ in range(5):
        step()
    before = weights(model)
    with monkeypatch.context() as patch:
        interrupted(patch)
        with pytest.raises(KeyboardInterrupt):
            step()
            weights(model)                       # where the step is replayed without a flush
            interrupt()
    # The interpreter serves the first runs, so the two agree to rounding only.
    np.testing.assert_allclose(weights(model), weights(expected), rtol=1e-4, atol=1e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(weights(model), before, rtol=1e-4, atol=1e-6)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    step()


def test_a_program_out_of_memory_leaves_the_parameters_as_they_were(
        monkeypatch: pytest.MonkeyPatch) -> None:
    model, step = training(False)
    for _ in range(5):
        step()
    before = weights(model)
    run = flush.Program.run

    def short(self: Any, *args: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(flush.Program, "run", short)
    with pytest.raises(MemoryError, match="no room"):
        step()
    monkeypatch.setattr(flush.Program, "run", run)
    assert weights(model) == before
    step()
    assert weights(model) != before


def test_an_error_of_the_program_is_the_context_of_the_interrupt(
        monkeypatch: pytest.MonkeyPatch) -> None:
    x = facula.ones(3) * 2
    interrupted(monkeypatch, MemoryError("no room"))
    with pytest.raises(KeyboardInterrupt) as caught:
        x.tolist()
    assert isinstance(caught.value.__context__, MemoryError)


def test_the_second_interrupt_is_not_held_back() -> None:
    assert interrupts.hold()
    try:
        assert not interrupts.hold()             # one section is enough
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    finally:
        interrupts.release()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_user_is_called_once() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    assert interrupts.hold()
    interrupt()
    assert not seen
    interrupts.release()
    assert seen == [signal.SIGINT]


@pytest.mark.parametrize("disposition", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_no_function_is_left_alone(disposition: Any) -> None:
    signal.signal(signal.SIGINT, disposition)
    assert not interrupts.hold()
    assert signal.getsignal(signal.SIGINT) is disposition


def test_other_threads_hold_nothing() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(interrupts.hold()))
    thread.start()
    thread.join()
    assert found == [False]
