"""Gradients at 0, where a value does not depend on what the derivative does."""

from __future__ import annotations

import math

import numpy as np
import pytest

import facula


@pytest.mark.parametrize("name, other", [("xlogy", 1.5), ("xlogy", 0.25), ("special.xlog1py", 0.5)])
def test_x_log_y_at_zero(name: str, other: float) -> None:
    """d/dx x log y is log y, at x = 0 as anywhere; and the second derivative is 1 / y."""
    module, _, function = name.rpartition(".")
    fn = getattr(getattr(facula, module) if module else facula, function)
    x = facula.zeros(2, dtype=facula.float64, requires_grad=True)
    y = facula.full((2,), other, dtype=facula.float64, requires_grad=True)
    (dx, dy) = facula.autograd.grad(fn(x, y).sum(), (x, y), create_graph=True)
    shift = 1.0 if "1p" in name else 0.0
    np.testing.assert_allclose(dx.detach().numpy(), math.log(other + shift))
    np.testing.assert_array_equal(dy.detach().numpy(), 0.0)
    (dxdy,) = facula.autograd.grad(dx.sum(), y)
    np.testing.assert_allclose(dxdy.numpy(), 1 / (other + shift))


def test_x_log_y_where_there_is_no_logarithm() -> None:
    x = facula.zeros(4, requires_grad=True)
    y = facula.tensor([0.0, -1.0, math.inf, math.nan], requires_grad=True)
    out = facula.xlogy(x, y)
    np.testing.assert_array_equal(out.detach().numpy(), [0, 0, 0, math.nan])
    out[:3].sum().backward()
    np.testing.assert_array_equal(x.grad.numpy()[:3], 0)
    np.testing.assert_array_equal(y.grad.numpy()[:3], 0)
