"""The padding modules against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn


@pytest.mark.parametrize("kind", ["Constant", "Zero", "Reflection", "Replication", "Circular"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_padding(kind, dims, batched):
    torch = pytest.importorskip("torch")
    x = np.arange(2 * 3 ** dims, dtype=np.float32).reshape(2, *(3,) * dims)
    x = x[None] if batched else x
    for padding in (1, tuple(range(1, 3)) * dims):
        args = (padding, 3.5) if kind == "Constant" else (padding,)
        found = []
        for lib in (torch, facula):
            m = getattr(lib.nn, f"{kind}Pad{dims}d")(*args)
            found.append((repr(m), m(lib.tensor(x)).numpy()))
        assert found[0][0] == found[1][0]
        np.testing.assert_array_equal(found[1][1], found[0][1])


def test_circular_dimensions():
    with pytest.raises(ValueError, match="expected 2D or 3D"):
        nn.CircularPad1d(1)(facula.ones(3))
