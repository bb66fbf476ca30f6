"""What the guards of a compiled function let through, and what `explain()` says they did not."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn, optim


def batches(count=10, rows=8):
    return [(facula.rand(rows, 20), facula.randint(0, 3, (rows,))) for _ in range(count)]


class Trainer:
    """A step whose own object also holds the batches that it is given."""

    def __init__(self):
        facula.manual_seed(0)
        self.model = nn.Linear(20, 3)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.data = batches()
        self.call = facula.compile(self.step)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def run(self, call):
        return [call(x, y).item() for _ in range(3) for x, y in self.data]


def test_batches_that_the_function_could_reach_are_arguments():
    fast, plain = Trainer(), Trainer()
    found = fast.run(fast.call)
    assert np.allclose(found, plain.run(plain.step), rtol=1e-5)
    # the optimiser's first step, two calls that show it, one that is captured for all
    assert fast.call.recordings <= 5, fast.call.explain()


def test_an_argument_that_is_also_read_the_other_way_is_not_let_through():
    data = [facula.rand(3) for _ in range(6)]
    for t in data:
        t._peek()
    fn = facula.compile(lambda x: x + data[1])
    for _ in range(3):
        for x in data:
            assert np.array_equal(fn(x).numpy(), x.numpy() + data[1].numpy())
    always = facula.compile(lambda x: data[0] * 2)
    for _ in range(3):
        for x in data:
            assert np.array_equal(always(x).numpy(), data[0].numpy() * 2)


def test_an_argument_that_is_written_to_and_can_be_reached():
    data = [facula.zeros(3) for _ in range(5)]

    def count(x):
        x += 1
        return data[0] + 0
    fn = facula.compile(count)
    for n in range(1, 5):
        for k, x in enumerate(data):
            assert fn(x).tolist() == [float(n)] * 3
            assert x.tolist() == [float(n)] * 3, (n, k)


def test_a_view_of_what_is_reached_as_an_argument():
    table = facula.rand(6, 4)
    table._peek()
    fn = facula.compile(lambda x: x * 2 + table[0])
    for _ in range(2):
        for k in range(6):
            assert np.allclose(fn(table[k]).numpy(), table[k].numpy() * 2 + table[0].numpy())


class Scale:
    factor = 2


CASES = {
    "shape": (lambda f, x: f(facula.rand(4)), "x is a tensor float32[4], and was a tensor "
                                              "float32[3]"),
    "dtype": (lambda f, x: f(x.double()), "x is a tensor float64[3], and was a tensor float32[3]"),
    "number": (lambda f, x: f(x, 3), "k is 3, and was 2"),
    "kind of number": (lambda f, x: f(x, 2.0), "k is 2.0, and was 2"),
    "count": (lambda f, x: f(x), "1 arguments are given by position, and not 2"),
    "by name": (lambda f, x: f(x, 2, bias=1), "arguments are given by name"),
    "nested": (lambda f, x: f(x, [2]), "k is a list of 1, and was 2"),
    "gradient": (lambda f, x: f(facula.rand(3, requires_grad=True), 2), "requires_grad"),
}


@pytest.mark.parametrize("case", CASES)
def test_explain_says_which_argument(case):
    fn = facula.compile(lambda x, k=2, bias=0: (x * (k if isinstance(k, (int, float)) else k[0])
                                                + bias).detach())
    x = facula.rand(3)
    change, text = CASES[case]
    if case == "shape":
        change = lambda f, x: f(facula.rand(4), 2)
    if case == "dtype":
        change = lambda f, x: f(x.double(), 2)
    for _ in range(3):
        fn(x, 2)
    assert fn.replays == 2
    change(fn, x)
    assert "1 x recorded again: " in fn.explain() and text in fn.explain(), fn.explain()


def test_explain_says_what_changed_in_the_world():
    scale, mode = Scale(), {"bias": 1.0}
    fn = facula.compile(lambda x: x * scale.factor + mode["bias"])
    x = facula.ones(3)
    for _ in range(2):
        assert fn(x).tolist() == [3.0] * 3
    scale.factor = 3                        # hides the class's
    for _ in range(2):
        assert fn(x).tolist() == [4.0] * 3
    mode["bias"] = 2.5
    for _ in range(2):
        assert fn(x).tolist() == [5.5] * 3
    with facula.no_grad():
        fn(x)
    text = fn.explain()
    assert "recorded again: scale.factor is new" in text
    assert "recorded again: mode['bias'] changes from 1.0 to 2.5" in text
    assert "the gradient mode is False, and was True" in text


class Base:
    factor = 2


class Derived(Base):
    pass


def test_a_class_attribute_that_hides_a_base_class_s():
    fn = facula.compile(lambda x: x * Derived.factor)
    x = facula.ones(2)
    assert fn(x).tolist() == fn(x).tolist() == [2.0, 2.0]
    Derived.factor = 5
    try:
        assert fn(x).tolist() == [5.0, 5.0]
    finally:
        del Derived.factor
    assert fn(x).tolist() == [2.0, 2.0]


def test_explain_has_a_reason_for_every_recording():
    w = facula.rand(3, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)

    def step(x):
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
    fn = facula.compile(step)
    x = facula.rand(3)
    for _ in range(3):
        fn(x)
    held = w.detach()                       # shares the parameter's memory
    fn(x)
    held._peek()
    optimizer.param_groups[0]["nesterov"] = False
    fn(x), fn(x)
    w.grad = None
    fn(x)
    said = sum(n for reason, n in fn.reasons.items())
    assert said >= fn.recordings - 1, fn.explain()
    assert not any(r.rstrip().endswith("again:") for r in fn.reasons), fn.explain()


def test_calls_of_other_sizes_have_one_text():
    """What is compiled of a recorded call is compiled once for all batch sizes, and still each of
    them says of its own sizes that they are others."""
    net = nn.Linear(20, 3)
    call = facula.compile(lambda x: net(x).sum())
    with facula.no_grad():
        for n in (5, 6, 7):
            for _ in range(3):
                call(facula.rand(n, 20))
        texts = {entry.text for entry in call.entries}
        assert len(call.entries) == 3 and len(texts) == 1
        for entry, n in zip(call.entries, (7, 6, 5), strict=True):
            _, why = entry.why((facula.rand(9, 20),), {}, facula.graph.record.recorder())
            assert "float32[9, 20]" in why and f"was a tensor float32[{n}, 20]" in why
    assert len({entry.guards for entry in call.entries}) == 1
