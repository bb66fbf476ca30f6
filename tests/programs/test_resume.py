"""Training that is saved, loaded into new objects and gone on with."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn, optim

STEPS, SAVED = 7, 4


def _fresh(make):
    facula.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(8),
                          nn.Linear(8, 3))
    return model, make(model.parameters())


def _train(model, optimizer, numbers):
    for k in numbers:
        facula.manual_seed(k)
        x = facula.randn(5, 6)
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, momentum=0.9),
                                  lambda p: optim.AdamW(p, 0.01)], ids=["SGD", "AdamW"])
def test_a_resumed_run_is_the_run_bit_by_bit(tmp_path, make):
    """In the process that made the first: what it has compiled goes on being used."""
    model, optimizer = _fresh(make)
    _train(model, optimizer, range(SAVED))
    facula.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()},
                tmp_path / "saved")
    _train(model, optimizer, range(SAVED, STEPS))

    other, again = _fresh(make)
    saved = facula.load(tmp_path / "saved")
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    _train(other, again, range(SAVED, STEPS))
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
