"""Dtypes that some operations treat in their own way, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import facula

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
@pytest.mark.parametrize("equation, shapes", [
    ("i->", [(3,)]), ("ij->i", [(2, 3)]), ("ij->ji", [(2, 3)]), ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,ij->i", [(2, 3), (2, 3)]), ("ii->i", [(3, 3)]), ("ii->", [(3, 3)]),
    ("ij,k->ik", [(2, 3), (4,)]), ("...ik,...j->ij", [(1, 2, 3), (3,)])])
def test_einsum_of_integers(equation: str, shapes: list[Any], dtype: str) -> None:
    arrays = [np.arange(np.prod(s)).reshape(s).astype(dtype) * 20 for s in shapes]
    got = facula.einsum(equation, *[facula.tensor(a) for a in arrays])
    want = torch.einsum(equation, *[torch.tensor(a) for a in arrays])
    assert got.dtype.name == str(want.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(got.numpy(), want.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_matrix_exp_of_half(dtype: str) -> None:
    array = np.random.default_rng(0).normal(size=(2, 3, 3))
    half = torch.tensor(array).to(getattr(torch, dtype))
    got = facula.tensor(half.float().numpy()).to(getattr(facula, dtype)).matrix_exp()
    want = half.double().matrix_exp()        # in the dtype itself PyTorch gives infinities
    assert got.dtype.name == dtype
    np.testing.assert_allclose(got.float().numpy(), want.numpy(), rtol=1e-2, atol=1e-2)
    with pytest.raises(RuntimeError, match="floating point or complex"):
        facula.ones(2, 2, dtype=facula.int64).matrix_exp()


def test_logsumexp_of_a_complex_number() -> None:
    for z in (1 + 9j, -3 - 4j, 2 + 0j, 0 + 3.2j):
        got = facula.logsumexp(facula.tensor(z, requires_grad=True), 0)
        want = torch.logsumexp(torch.tensor(z), 0)
        assert got.item() == pytest.approx(want.item(), rel=1e-5)
    x = facula.tensor(1 + 9j, requires_grad=True)
    facula.view_as_real(facula.logsumexp(x, 0)).sum().backward()
    assert x.grad.item() == pytest.approx(1 + 1j)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sinc_of_half(dtype: str) -> None:
    """pi x is not rounded to the dtype, in which sin(pi x) of an integer would not be 0."""
    x = [-3.0, -1.5, 2.0, 5.0, 0.0, 0.25]
    got = facula.tensor(x, dtype=getattr(facula, dtype)).sinc()
    want = torch.tensor(x, dtype=getattr(torch, dtype)).sinc()
    assert got.dtype.name == dtype
    np.testing.assert_allclose(got.float().numpy(), want.float().numpy(), rtol=1e-2, atol=1e-6)
