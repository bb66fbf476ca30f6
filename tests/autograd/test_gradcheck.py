"""`gradcheck` and `gradgradcheck`: they pass what is right and catch what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula.autograd import Function, GradcheckError, gradcheck, gradgradcheck
from tests.nn.functional_cases import ACTIVATIONS, LAYERS, LOSSES


def leaf(*shape, seed=0, dtype=np.float64):
    value = np.random.default_rng(seed).standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        value = value + 1j * np.random.default_rng(seed + 1).standard_normal(shape)
    return facula.tensor(value.astype(dtype)).requires_grad_()


class Doubled(Function):
    """2 * x, with a gradient that may be wrong."""

    factor = 2.0

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * Doubled.factor


def test_passes_and_fails():
    x = leaf(3)
    for fast in (False, True):
        assert gradcheck(Doubled.apply, (x,), fast_mode=fast)
    Doubled.factor = 2.5
    try:
        for fast in (False, True):
            with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0"):
                gradcheck(Doubled.apply, (x,), fast_mode=fast)
        assert gradcheck(Doubled.apply, x, raise_exception=False) is False
    finally:
        Doubled.factor = 2.0


def test_complex_inputs_and_outputs():
    z, x = leaf(3, dtype=np.complex128), leaf(3, seed=5)
    for fast in (False, True):
        assert gradcheck(lambda z, x: z * x * z, (z, x), fast_mode=fast)
        assert gradcheck(lambda z: z.abs(), (z,), fast_mode=fast)
        assert gradcheck(lambda z: (z.conj() * z.exp(), z.real), (z,), fast_mode=fast)
    assert gradgradcheck(lambda z, x: z * z * x, (z, x))


def test_several_outputs_unused_inputs_and_constants():
    x, y = leaf(2, 3), leaf(3, seed=2)
    assert gradcheck(lambda x, y: (x.sin(), x * 2), (x, y))
    assert gradcheck(lambda x, k: x * k, (x, 3.0))
    assert gradcheck(lambda x, c: x * c, (x, facula.ones(3, dtype=facula.float64)))
    with pytest.raises(GradcheckError, match="expected to be zero"):
        gradcheck(lambda x: x.detach() * 2, (x,))
    assert gradcheck(lambda x: x.detach() * 0, (x,))


def test_needs_an_input_and_warns_of_single_precision():
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradcheck(lambda x: x, (facula.ones(2, dtype=facula.float64),))
    single = leaf(2, dtype=np.float32)
    with pytest.warns(UserWarning, match="not of double precision|not a double precision"):
        assert gradcheck(lambda x: x * 2, (single,), eps=1e-2, atol=1e-2)


def test_batched_gradients_and_dtypes():
    assert gradcheck(lambda x: x * x, (leaf(3),), check_batched_grad=True,
                     check_grad_dtypes=True)


def test_second_derivatives_that_are_missing_are_found():
    class Squared(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 2 * x.detach()

    x = leaf(3)
    assert gradcheck(Squared.apply, (x,))
    with pytest.raises(GradcheckError):
        gradgradcheck(Squared.apply, (x,))
    assert gradgradcheck(lambda x: x * x * x, (x,), gen_non_contig_grad_outputs=True)


def inputs_of(case):
    return [facula.tensor(a).requires_grad_() if a.dtype.kind == "f" else facula.tensor(a)
            for a in case[2]]


# Cases that hold back part of the gradient, by detaching an input or as they are defined.
HELD_BACK = ("embedding-pad", "embedding-freq", "batch_norm-eval", "weight", "poisson-full",
             "multi_margin-2", "multilabel_soft")

CHECKED = [c for c in ACTIVATIONS + LAYERS + LOSSES
           if not c[0].endswith(("-sum", "-none")) and not any(h in c[0] for h in HELD_BACK)]


@pytest.mark.parametrize("case", CHECKED, ids=[c[0] for c in CHECKED])
def test_functional(case):
    """First and second derivatives of every function, without PyTorch."""
    name, call, _ = case
    inputs = inputs_of(case)
    if not any(t.requires_grad and t.numel() for t in inputs):
        return
    assert gradcheck(lambda *a: call(F, *a), inputs, fast_mode=True, atol=1e-4)
    assert gradgradcheck(lambda *a: call(F, *a), inputs, fast_mode=True, atol=1e-4)
