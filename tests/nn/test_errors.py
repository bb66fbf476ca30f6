"""Errors that say where: the module's path, both shapes, the user's line and the fix."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import facula
from facula import nn
from facula.errors import BroadcastError, DTypeError, ShapeError
from facula.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(784, 128)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        x = self.layer1(x)
        return self.body(x)


def line_of(function, text):
    """`file:line` of the first line of `function` that contains `text`."""
    lines, start = inspect.getsourcelines(function)
    number = next(k for k, line in enumerate(lines) if text in line)
    return f"{inspect.getsourcefile(function)}:{start + number}"


def test_images_that_are_not_flattened():
    model = Net()
    images = facula.zeros(64, 1, 28, 28)
    with pytest.raises(ShapeError) as info:
        model(images)
    text = str(info.value)
    assert "mat1 and mat2 shapes cannot be multiplied (1792x28 and 784x128)" in text
    assert "in model.layer1 (Linear(in_features=784, out_features=128, bias=True))" in text
    assert "[64, 1, 28, 28]" in text and "[128, 784]" in text
    assert line_of(Net.forward, "self.layer1(x)") in text and "x = self.layer1(x)" in text
    assert "nn.Flatten()" in text and "x.flatten(1)" in text
    assert isinstance(info.value, RuntimeError) and text.count("in model") == 1
    assert model(images.flatten(1)).shape == (64, 10)


def test_class_numbers_handed_to_mse():
    criterion = nn.MSELoss()
    for n in (64, 10, 1):                   # 10 and 1 would broadcast without a word
        output, labels = facula.zeros(n, 10), facula.zeros(n, dtype=facula.int64)
        with pytest.raises(BroadcastError) as info:
            loss = criterion(output, labels)        # noqa: F841
        text = str(info.value)
        assert "in criterion (MSELoss())" in text
        assert f"[{n}, 10]" in text and f"[{n}]" in text
        assert line_of(test_class_numbers_handed_to_mse, "loss = criterion(") in text
        assert "fix: " in text and "nn.CrossEntropyLoss" in text
        assert "F.one_hot(target, 10).to(facula.float32)" in text
        assert isinstance(info.value, RuntimeError)
    assert nn.CrossEntropyLoss()(output, labels).shape == ()
    assert criterion(output, F.one_hot(labels, 10).to(facula.float32)).shape == ()


def test_a_module_deep_inside_is_named_by_its_path():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(783, 3)), nn.ReLU())
            self.loss = nn.MSELoss()

        def forward(self, x, y):
            return self.loss(self.net(x), y)

    whole = Whole()
    x, y = facula.zeros(4, 28, 28), facula.zeros(4, dtype=facula.int64)
    with pytest.raises(ShapeError, match=r"in whole\.net\.0\.1 \(Linear\(in_features=783"):
        whole(x, y)
    whole.net[0][1] = nn.Linear(784, 10)
    with pytest.raises(BroadcastError, match=r"in whole\.loss \(MSELoss\(\)\)") as info:
        whole(x, y)
    assert "self.loss(self.net(x), y)" in str(info.value)
    with pytest.raises(BroadcastError):     # the same again: nothing was left behind
        whole(x, y)


def test_wrong_dtypes_name_the_module():
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(DTypeError, match="same dtype") as info:
        model(facula.zeros(4, 3, dtype=facula.float64))
    assert "in model.0 (Linear(" in str(info.value)
    table = nn.Embedding(3, 2)
    with pytest.raises(DTypeError, match="Long, Int") as info:
        table(facula.zeros(3))
    assert "in table (Embedding(3, 2))" in str(info.value)


LOSSES = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
          "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss", "soft_margin_loss",
          "hinge_embedding_loss"]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_broadcast_only_when_asked(name):
    loss = getattr(F, name)
    x = facula.tensor(np.full((3, 1), 0.5))
    y = facula.tensor(np.full((3,), 0.25))
    with pytest.raises(BroadcastError, match="does not broadcast") as info:
        loss(x, y)
    assert "input.squeeze(-1) or target.unsqueeze(-1)" in str(info.value)
    have = loss(x, y, broadcast=True)
    want = loss(x.expand(3, 3).clone(), y.expand(3, 3).clone())
    np.testing.assert_allclose(have.numpy(), want.numpy())
    with pytest.raises(BroadcastError):     # asked for, and impossible
        loss(facula.ones(3), facula.ones(2), broadcast=True)


def test_losses_of_more_operands_do_not_broadcast_either():
    x, y = facula.ones(3, 4), facula.ones(1, 4)
    t = facula.ones(3, dtype=facula.int64)
    for call in (lambda: F.triplet_margin_loss(x, y, x), lambda: F.triplet_margin_loss(x, x, y),
                 lambda: F.cosine_embedding_loss(x, y, t),
                 lambda: F.gaussian_nll_loss(x, facula.ones(4), x)):
        with pytest.raises(BroadcastError):
            call()


def test_targets_of_cross_entropy():
    x = facula.zeros(4, 3)
    with pytest.raises(DTypeError, match="expected scalar type Long but found Float"):
        F.cross_entropy(x, facula.zeros(4))
    with pytest.raises(ShapeError, match=r"batch_size \(4\) to match target batch_size \(5\)"):
        F.cross_entropy(x, facula.zeros(5, dtype=facula.int64))
    with pytest.raises(ShapeError, match="all or no classes"):
        F.cross_entropy(x, facula.zeros(4, dtype=facula.int64), facula.ones(2))
    for bad in (3, -1, 100):
        with pytest.raises(IndexError):
            F.cross_entropy(x, facula.tensor([0, 1, bad, 2])).item()
        with pytest.raises(IndexError):
            F.nll_loss(x, facula.tensor([0, 1, bad, 2])).item()


def test_refused_as_by_pytorch():
    x, t = facula.ones(4, 3), facula.zeros(4).long()
    for kind, call in (
            (ValueError, lambda: nn.BatchNorm1d(3, eps=0.0)(x)),
            (ValueError, lambda: F.batch_norm(x, None, None, training=True, eps=-1.0)),
            (TypeError, lambda: nn.HuberLoss(delta=1 + 0j)),
            (ValueError, lambda: F.cross_entropy(x, facula.ones(5))),
            (ValueError, lambda: F.cross_entropy(x, facula.ones(5, 3))),
            (RuntimeError, lambda: F.cross_entropy(x, t, weight=facula.ones(3).half())),
            (RuntimeError, lambda: F.nll_loss(x, t, weight=facula.ones(3).double()))):
        with pytest.raises(kind):
            call()
    F.batch_norm(x, facula.zeros(3), facula.ones(3), eps=0.0)   # in evaluation it may be 0
    F.cross_entropy(x, facula.ones(4, 3), weight=facula.ones(3).half())
