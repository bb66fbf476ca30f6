"""Clipping of gradients and the vector of all parameters, as PyTorch has them."""

from __future__ import annotations

import numpy as np
import pytest

import facula

GRADIENTS = [np.random.default_rng(k).standard_normal(s).astype(np.float32) * 3
             for k, s in enumerate(((3, 4), (2,), (), (0, 3)))]


def _parameters(lib, gradients=GRADIENTS):
    out = []
    for g in gradients:
        p = lib.tensor(np.zeros_like(g), requires_grad=True)
        p.grad = lib.tensor(g.copy())
        out.append(p)
    return [*out, lib.tensor(1.0, requires_grad=True)]          # one without a gradient


CALLS = {
    "2": lambda u, p, lib: u.clip_grad_norm_(p, 1.0),
    "1": lambda u, p, lib: u.clip_grad_norm_(p, 1.0, 1),
    "3": lambda u, p, lib: u.clip_grad_norm_(p, 1.0, 3.0),
    "0": lambda u, p, lib: u.clip_grad_norm_(p, 1.0, 0),
    "inf": lambda u, p, lib: u.clip_grad_norm_(p[:3], 1.0, float("inf")),
    "-inf": lambda u, p, lib: u.clip_grad_norm_(p[:3], 1.0, float("-inf")),
    "nothing to clip": lambda u, p, lib: u.clip_grad_norm_(p, 1e6),
    "no gradient": lambda u, p, lib: u.clip_grad_norm_([p[-1]], 1.0),
    "one": lambda u, p, lib: u.clip_grad_norm_(p[0], 1.0),
    "generator": lambda u, p, lib: u.clip_grad_norm_((q for q in p), 1.0),
    "value": lambda u, p, lib: u.clip_grad_value_(p, 1.0),
    "total": lambda u, p, lib: u.get_total_norm([q.grad for q in p[:-1]]),
    "total of none": lambda u, p, lib: u.get_total_norm([]),
    "with": lambda u, p, lib: u.clip_grads_with_norm_(p, 2.0, lib.tensor(4.0)),
    "nan": lambda u, p, lib: (p[0].grad.fill_(float("nan")), u.clip_grad_norm_(p, 1.0))[1],
    "infinite": lambda u, p, lib: (p[0].grad.fill_(float("inf")), u.clip_grad_norm_(p, 1.0))[1],
    "vector": lambda u, p, lib: u.parameters_to_vector(p[:3]).detach(),
    "from vector": lambda u, p, lib: (u.vector_to_parameters(lib.arange(15.0), p[:3]),
                                      u.parameters_to_vector(p).detach())[1],
}


@pytest.mark.parametrize("name", CALLS)
def test_matches_torch(name):
    torch = pytest.importorskip("torch")
    results = []
    for lib in (torch, facula):
        p = _parameters(lib)
        out = CALLS[name](lib.nn.utils, p, lib)
        results.append([None if out is None else out.numpy(), *(q.grad.numpy() for q in p[:-1])])
    for want, have in zip(*results, strict=True):
        assert (want is None) == (have is None)
        if want is not None:
            assert have.shape == want.shape
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)


def test_by_its_meaning():
    p = _parameters(facula)
    total = facula.nn.utils.clip_grad_norm_(p, 2.0)
    want = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in GRADIENTS))
    assert total.item() == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(p[0].grad.numpy(), GRADIENTS[0] * 2 / want, rtol=1e-4)
    p[0].grad[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="non-finite"):
        facula.nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    with pytest.raises(RuntimeError, match="invalid for input of size 3"):
        facula.nn.utils.vector_to_parameters(facula.arange(3.0), p[:1])
    with pytest.raises(TypeError, match="int"):
        facula.nn.utils.vector_to_parameters(3, p[:1])
