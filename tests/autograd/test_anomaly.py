"""Anomaly mode: the operation, its shapes, its module and the line of the first NaN."""

from __future__ import annotations

import inspect
import math
import warnings

import pytest

import facula
from facula import nn
from facula.autograd import (
    AnomalyError,
    detect_anomaly,
    is_anomaly_check_nan_enabled,
    is_anomaly_enabled,
    set_detect_anomaly,
)
from facula.graph.record import recorder


@pytest.fixture(autouse=True)
def off_again():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection")
        yield
    assert recorder().watch is None
    assert type(recorder().graph.handles) is list


def here(offset=0):
    frame = inspect.currentframe().f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno + offset}"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Root())

    def forward(self, x):
        return self.layers(x)


class Root(nn.Module):
    line = 0

    def forward(self, x):
        Root.line = here(1)
        return (x * 0).sqrt()


BACKWARD = {
    "sqrt": (lambda t: (t * 0).sqrt() * 0, "Sqrt"),
    "mul": (lambda t: (t * 0).sqrt(), "Mul"),
    "div": (lambda t: (t * 0) / (t * 0), "Div"),
    "log": (lambda t: (t * 0).log() * 0, "Log"),
}


@pytest.mark.parametrize("name", list(BACKWARD))
def test_backward_names_the_function_torch_names(name):
    fn, function = BACKWARD[name]
    x = facula.ones(3, requires_grad=True)
    with detect_anomaly():
        y = fn(x).sum()
        with pytest.raises(AnomalyError, match=f"Function '{function}Backward0' returned nan "
                                               r"values in its \dth output") as caught:
            y.backward()
    assert "float32[3]" in str(caught.value) and __file__ in str(caught.value)
    torch = pytest.importorskip("torch")
    with torch.autograd.detect_anomaly():
        with pytest.raises(RuntimeError, match=f"'{function}Backward0' returned nan"):
            fn(torch.ones(3, requires_grad=True)).sum().backward()


def test_backward_names_module_and_line():
    model = Net()
    with detect_anomaly():
        with pytest.raises(AnomalyError, match="MulBackward0") as caught:
            model(facula.ones(2, 3)).sum().backward()
        text = str(caught.value)
        assert "in Net.layers.2 (Root)" in text and f"at {Root.line}: return (x * 0).sqrt()" in text
        assert "float32[2, 4]" in text
        # The values of the forward pass are asked for in between: the notes are still there.
        y = model(facula.ones(2, 3)).sum()
        assert y.item() == 0
        with pytest.raises(AnomalyError) as caught:
            y.backward()
        assert f"at {Root.line}" in str(caught.value)


def test_grad_and_what_is_fine():
    x = facula.tensor([1.0, 4.0], requires_grad=True)
    with detect_anomaly():
        assert is_anomaly_enabled() and is_anomaly_check_nan_enabled()
        (g,) = facula.autograd.grad(x.sqrt().sum(), x, create_graph=True)
        assert g.tolist() == [0.5, 0.25]
        g.sum().backward()
        with pytest.raises(AnomalyError):
            facula.autograd.grad((x * 0).sqrt().sum(), x)
    assert not is_anomaly_enabled()
    (x * 0).sqrt().sum().backward()
    assert math.isnan(x.grad.tolist()[0])
    with detect_anomaly(check_nan=False):
        assert not is_anomaly_check_nan_enabled()
        (x * 0).sqrt().sum().backward()


def test_an_intermediate_nan_that_is_thrown_away_is_fine():
    """Only what gradient functions return counts, not what they use inside."""
    x = facula.tensor([0.0, 2.0], requires_grad=True)
    with detect_anomaly(), set_detect_anomaly(True, forward=True):
        (x ** 0).sum().backward()
        facula.xlogy(x, x.detach()).sum().backward()
        nn.functional.binary_cross_entropy(x / 2, facula.tensor([0.0, 1.0])).backward()
    assert facula.isfinite(x.grad).all().item()


FORWARD = {
    "log": (lambda: facula.zeros(3).log(), "log made inf in 3 of the 3"),
    "div": (lambda: facula.tensor([0.0, 1.0]) / 0, r"div made NaN in 1 of the 2 .*float32\[2\]"),
    "sub": (lambda: facula.full((2,), math.inf) - math.inf, "sub made NaN in 2"),
    "exp": (lambda: facula.tensor([1.0, 100.0, 1.0]).exp() * 0, "exp made inf in 1 of the 3"),
    "half": (lambda: facula.full((2,), 300.0).half() ** 2, "made inf in 2"),
    "norm": (lambda: nn.functional.layer_norm(facula.tensor([[1.0, math.nan]]), (2,)),
             "layer_norm reads a value that is NaN already"),
    "complex": (lambda: facula.zeros(2, dtype=facula.complex64).log(), "log made"),
}


@pytest.mark.parametrize("name", list(FORWARD))
def test_forward_names_the_first_operation(name):
    make, text = FORWARD[name]
    for _ in range(2):                          # recorded for the first time, and followed
        with set_detect_anomaly(True, forward=True):
            out = make()
            with pytest.raises(AnomalyError, match=text) as caught:
                (out + 1).abs().sum().tolist()
            assert __file__ in str(caught.value)
    with set_detect_anomaly(True):
        make().tolist()                         # only gradients are looked at


def test_infinities_that_were_put_there_are_fine():
    with set_detect_anomaly(True, forward=True):
        scores = facula.zeros(3).masked_fill(facula.tensor([True, False, True]), -math.inf)
        assert scores.softmax(0).tolist() == [0, 1, 0]
        assert facula.tensor([1.0, math.inf]).amax().item() == math.inf
        assert facula.tensor([1, 2]).sum().item() == 3


def test_values_are_there_after_the_error():
    x = facula.ones(2)
    with set_detect_anomaly(True, forward=True):
        y, z = x + 1, x.log().log()
        with pytest.raises(AnomalyError, match="log made inf"):
            y.tolist()
        assert y.tolist() == [2, 2] and z.tolist() == [-math.inf] * 2


def test_the_block_looks_at_what_was_recorded_in_it():
    with pytest.raises(AnomalyError, match="log made"):
        with detect_anomaly(forward=True):
            y = facula.zeros(2).log()
    assert not is_anomaly_enabled()
    assert y.tolist() == [-math.inf] * 2


def test_in_a_training_step_and_as_a_decorator():
    model = Net()
    o = facula.optim.SGD(model.parameters(), lr=0.1)

    @detect_anomaly()
    def step(x):
        o.zero_grad()
        model.layers[:2](x).sum().backward()
        o.step()

    @facula.compile
    def compiled(x):
        return x.log() * 2

    for _ in range(3):
        step(facula.ones(2, 3))
        assert compiled(facula.ones(2)).tolist() == [0, 0]
    set_detect_anomaly(True, forward=True)
    try:
        with pytest.raises(AnomalyError, match="log made"):
            compiled(facula.zeros(2)).tolist()
    finally:
        set_detect_anomaly(False)


def test_custom_functions_and_checkpoints():
    from facula.utils.checkpoint import checkpoint
    x = facula.ones(2, requires_grad=True)
    with detect_anomaly():
        y = checkpoint(lambda t: (t * 0).sqrt(), x, use_reentrant=False)
        with pytest.raises(AnomalyError, match="MulBackward0"):
            y.sum().backward()
