"""The registry's distributions, made from its samples, for the tests that walk it."""

import numpy as np

import facula
import facula.distributions as D
from facula.distributions.distribution import FAMILIES

CASES = [(name, k) for name, f in sorted(FAMILIES.items()) for k in range(len(f.samples))]


def tensor(value):
    return facula.tensor(value, dtype=facula.float64)


def arguments(name, k, module=D, make=tensor):
    return FAMILIES[name].arguments(module, make)[k]


def made(name, k, **rest):
    return getattr(D, name)(**arguments(name, k), **rest)


def close(got, want, rtol=1e-9, atol=1e-9, what=""):
    got, want = (np.asarray(x.detach().numpy() if hasattr(x, "detach") else x)
                 for x in (got, want))
    assert got.shape == want.shape, (what, got.shape, want.shape)
    # Numbers given as Python's are float32 in both.
    if got.dtype == np.float32:
        rtol, atol = max(rtol, 3e-5), max(atol, 3e-5)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, err_msg=what)
