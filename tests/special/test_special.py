"""Special functions: against SciPy's at many places, and PyTorch's names and gradients."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

import facula
from facula.ops.primitive.functions import bessel, gamma, normal
from facula.ops.primitive.functions.polynomials import POLYNOMIALS

scipy = pytest.importorskip("scipy.special")
sys.path.insert(0, str(Path(__file__).parents[1] / "linalg"))

rng = np.random.default_rng(0)
ODD = np.array([0.0, -0.0, 1, 2, -1, -2, np.nan, np.inf, 1e-300, 1e-20, -1e-20, 0.5, -0.5])
WIDE = np.concatenate([ODD, rng.uniform(-20, 20, 800), 10 ** rng.uniform(-10, 4, 300)])
FINITE = WIDE[~np.isinf(WIDE)]             # SciPy's Bessel functions are NaN at infinity
ABOVE = np.concatenate([rng.uniform(0.01, 30, 500), 10 ** rng.uniform(-5, 4, 200)])
UNIT = np.concatenate([rng.uniform(-1, 1, 500), [0, 1, -1, 2, np.nan, 1e-300, 1 - 1e-16, 0.5]])


def close(got, want, tolerance):
    """As many digits relative to the value, or to 1 where a function passes through zero."""
    assert (np.isnan(got) == np.isnan(want)).all()
    assert (np.isinf(got) == np.isinf(want)).all()
    finite = np.isfinite(want)
    off = np.abs(got[finite] - want[finite]) / np.maximum(np.abs(want[finite]), 1)
    assert off.max() < tolerance, float(off.max())


@pytest.mark.parametrize("ours,theirs,points,tolerance", [
    (gamma.lgamma, scipy.gammaln, WIDE, 1e-13), (gamma.digamma, scipy.psi, WIDE, 1e-11),
    (lambda x: gamma.polygamma(1, x), lambda x: scipy.polygamma(1, x), ABOVE, 1e-14),
    (lambda x: gamma.polygamma(4, x), lambda x: scipy.polygamma(4, x), ABOVE, 1e-14),
    (lambda x: gamma.zeta(x + 1, 2.5), lambda x: scipy.zeta(x + 1, 2.5), ABOVE, 1e-14),
    (normal.erfinv, scipy.erfinv, UNIT, 1e-15), (normal.ndtri, scipy.ndtri, UNIT, 1e-14),
    (normal.erfcx, scipy.erfcx, WIDE, 1e-14), (normal.log_ndtr, scipy.log_ndtr, WIDE, 1e-14),
    (bessel.bessel_j0, scipy.j0, FINITE, 1e-13), (bessel.bessel_j1, scipy.j1, FINITE, 1e-13),
    (bessel.bessel_y0, scipy.y0, FINITE, 1e-13), (bessel.bessel_y1, scipy.y1, FINITE, 1e-13),
    (bessel.i0, scipy.i0, FINITE, 1e-14), (bessel.i0e, scipy.i0e, WIDE, 1e-14),
    (bessel.i1, scipy.i1, FINITE, 1e-14), (bessel.i1e, scipy.i1e, WIDE, 1e-14),
    (bessel.k0, scipy.k0, WIDE, 1e-14), (bessel.k0e, scipy.k0e, WIDE, 1e-14),
    (bessel.k1, scipy.k1, WIDE, 1e-14), (bessel.k1e, scipy.k1e, WIDE, 1e-14),
    (bessel.airy_ai, lambda x: scipy.airy(x)[0], FINITE, 1e-13),
])
def test_functions_of_one_number(ours, theirs, points, tolerance):
    with np.errstate(all="ignore"):
        close(np.asarray(ours(points)), theirs(points), tolerance)


@pytest.mark.parametrize("scale", [1, 1e2, 1e4, 1e6])
def test_incomplete_gamma_functions(scale):
    a = scale * rng.uniform(0.01, 5, 400)
    for spread in (1.0, 1 / math.sqrt(scale)):
        x = a * np.maximum(1 + spread * rng.uniform(-1, 3, 400), 0)
        with np.errstate(all="ignore"):
            close(gamma.igamma(a, x), scipy.gammainc(a, x), 1e-7 if scale > 1e5 else 1e-11)
            close(gamma.igammac(a, x), scipy.gammaincc(a, x), 1e-7 if scale > 1e5 else 1e-11)


@pytest.mark.parametrize("name,theirs", [
    ("chebyshev_polynomial_t", scipy.eval_chebyt), ("chebyshev_polynomial_u", scipy.eval_chebyu),
    ("hermite_polynomial_h", scipy.eval_hermite), ("laguerre_polynomial_l", scipy.eval_laguerre),
    ("hermite_polynomial_he", scipy.eval_hermitenorm),
    ("legendre_polynomial_p", scipy.eval_legendre),
    ("shifted_chebyshev_polynomial_t", scipy.eval_sh_chebyt)])
def test_polynomials(name, theirs):
    x, n = rng.uniform(-1.5, 1.5, 500), rng.integers(0, 25, 500)
    close(POLYNOMIALS[name](x, n, 8), theirs(n, x), 1e-11)


SMOOTH = {
    "lgamma": (0.2, 6), "digamma": (0.2, 6), "erfinv": (-0.9, 0.9), "special.ndtri": (0.05, 0.95),
    "special.erfcx": (-2, 3), "special.log_ndtr": (-4, 3), "i0": (-3, 3), "special.i0e": (0.1, 3),
    "special.i1": (-3, 3), "special.i1e": (0.1, 3), "special.entr": (0.2, 3),
    "special.ndtr": (-3, 3), "special.expit": (-3, 3), "special.gammaln": (0.2, 4),
}


def named(m, name):
    for part in name.split("."):
        m = getattr(m, part)
    return m


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_every_order(name):
    pytest.importorskip("torch")
    from both import compare
    for shape in ((7,), (), (2, 0)):
        compare(lambda m, x: named(m, name)(x), [rng.uniform(*SMOOTH[name], shape)], rtol=1e-7)


def test_gradients_of_two_operands():
    pytest.importorskip("torch")
    from both import compare
    a, x = rng.uniform(0.4, 4, (3, 4)), rng.uniform(0.2, 5, 4)
    x[0] = 0
    compare(lambda m, p, q: m.special.xlog1py(p, q), [x, a])
    for n in (0, 1, 3):
        compare(lambda m, q, n=n: m.polygamma(n, q), [a])
    compare(lambda m, q: m.mvlgamma(q + 2, 3), [a])
    for name in ("igamma", "igammac"):
        compare(lambda m, q, name=name: getattr(m, name)(
            m.tensor([1.5, 0.5, 2, 9], dtype=m.float64), q), [a], rtol=1e-7)


def test_names_dtypes_and_odd_values_are_pytorchs():
    torch = pytest.importorskip("torch")
    rest = {n for n in dir(torch.special) if not n.startswith("_")} - {
        "Tensor", "torch", "common_args", "multi_dim_common"}
    assert rest <= set(dir(facula.special))
    odd = np.array([0.0, -0.0, 1, -1, 2, -2, np.inf, -np.inf, np.nan, 0.5])
    for name in ("digamma", "gammaln", "erfinv", "ndtri", "log_ndtr", "erfcx", "i0", "i0e", "i1",
                 "i1e", "bessel_j0", "bessel_y0", "bessel_y1", "modified_bessel_k0", "entr",
                 "modified_bessel_k1", "airy_ai", "ndtr", "spherical_bessel_j0"):
        for dtype in ("float32", "float64"):
            got = named(facula.special, name)(facula.tensor(odd.astype(dtype)))
            want = named(torch.special, name)(torch.tensor(odd.astype(dtype)))
            if name in ("bessel_j0", "bessel_y0", "bessel_y1", "i0", "i1"):
                want[6:8] = torch.tensor(got.numpy()[6:8])      # NaN there, the limit here
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-6, err_msg=name)
        whole = named(facula.special, name)(facula.tensor([1, 2]))
        assert whole.dtype is facula.float32


def test_neighbours():
    torch = pytest.importorskip("torch")
    a = np.array([0, -0.0, 1, -1, 2, np.inf, -3, 0.0, 5e-3, np.nan], np.float32)
    b = np.array([1, -1, 2, 2, -2, 0, -3, -5, np.inf, 1], np.float32)
    for d in ("bfloat16", "float32", "float64"):
        want = torch.nextafter(*(torch.tensor(v).to(getattr(torch, d)) for v in (a, b)))
        got = facula.nextafter(*(facula.tensor(v).to(getattr(facula, d)) for v in (a, b)))
        np.testing.assert_array_equal(got.double().numpy(), want.double().numpy())


def test_numbers_alone_are_refused():
    for fn in (facula.special.zeta, facula.special.xlog1py, facula.igamma):
        with pytest.raises(TypeError):
            fn(1, 2)
    with pytest.raises(RuntimeError):
        facula.polygamma(-1, facula.ones(2))
