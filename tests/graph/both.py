"""What tests of views and writes share."""

from __future__ import annotations

from typing import Any

import numpy as np

import facula


def equal(t: Any, expected: Any) -> None:
    np.testing.assert_allclose(t.detach().clone().numpy(), np.asarray(expected), rtol=1e-6)


def arange(n: int, **kwargs: Any) -> Any:
    return facula.tensor(np.arange(float(n)), **kwargs)
