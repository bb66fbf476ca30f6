"""A composite stays one kernel: what is written in several operations is run in one loop nest.

Counted for two-dimensional float32 inputs: rows of a batch, normalised or reduced over the last
dimension.  A function that this table lacks, and that should be one kernel, belongs into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import facula
import facula.nn.functional as F
from facula import viz

ROWS, COLUMNS = 64, 96


class Inputs:
    """What the functions are called with: values in memory, so that nothing is fused in."""

    def __init__(self) -> None:
        facula.manual_seed(0)
        self.x = facula.randn(ROWS, COLUMNS)
        self.y = facula.randn(ROWS, COLUMNS)
        self.w, self.b = facula.randn(COLUMNS), facula.randn(COLUMNS)
        self.mean, self.var = facula.randn(COLUMNS), facula.rand(COLUMNS) + 0.5
        self.target = facula.randint(0, COLUMNS, (ROWS,))
        for value in vars(self).values():
            value.numpy()


ONE_KERNEL: dict[str, Callable[[Inputs], Any]] = {
    "softmax": lambda i: F.softmax(i.x, -1),
    "softmax over columns": lambda i: F.softmax(i.x, 0),
    "softmin": lambda i: F.softmin(i.x, -1),
    "log_softmax": lambda i: F.log_softmax(i.x, -1),
    "logsumexp": lambda i: facula.logsumexp(i.x, -1),
    "layer_norm": lambda i: F.layer_norm(i.x, (COLUMNS,), i.w, i.b),
    "rms_norm": lambda i: F.rms_norm(i.x, (COLUMNS,), i.w),
    "batch_norm, evaluation": lambda i: F.batch_norm(i.x, i.mean, i.var, i.w, i.b),
    "normalize": lambda i: F.normalize(i.x, dim=1),
    "var": lambda i: i.x.var(1),
    "std": lambda i: i.x.std(1),
    "gelu": lambda i: F.gelu(i.x),
    "gelu, tanh": lambda i: F.gelu(i.x, approximate="tanh"),
    "silu": lambda i: F.silu(i.x),
    "mish": lambda i: F.mish(i.x),
    "softplus": lambda i: F.softplus(i.x),
    "glu": lambda i: F.glu(i.x, -1),
    "elu": lambda i: F.elu(i.x),
    "hardswish": lambda i: F.hardswish(i.x),
    "dropout": lambda i: F.dropout(i.x, 0.5),
    "residual, dropout, layer_norm": lambda i: F.layer_norm(i.y + F.dropout(i.x, 0.1),
                                                            (COLUMNS,), i.w, i.b),
    "cross_entropy of each row": lambda i: F.cross_entropy(i.x, i.target, reduction="none"),
    "nll_loss of each row": lambda i: F.nll_loss(i.x, i.target, reduction="none"),
    "kl_div": lambda i: F.kl_div(i.x, i.y, reduction="sum"),
    "mse_loss": lambda i: F.mse_loss(i.x, i.y),
    "huber_loss": lambda i: F.huber_loss(i.x, i.y),
    "binary_cross_entropy_with_logits":
        lambda i: F.binary_cross_entropy_with_logits(i.x, facula.sigmoid(i.y)),
    "lerp": lambda i: facula.lerp(i.x, i.y, 0.3),
    "addcmul": lambda i: facula.addcmul(i.x, i.y, i.w, value=0.5),
}


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs()


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_one_kernel(name: str, inputs: Inputs) -> None:
    kernels = viz.kernels(ONE_KERNEL[name](inputs))
    assert len(kernels) == 1, [str(k) for k in kernels]


def test_cross_entropy(inputs: Inputs) -> None:
    """A mean over the rows needs them all: a second kernel, of one number a row."""
    kernels = viz.kernels(F.cross_entropy(inputs.x, inputs.target))
    assert len(kernels) == 2, [str(k) for k in kernels]
