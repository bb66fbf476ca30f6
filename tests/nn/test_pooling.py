"""Pooling against PyTorch and finite differences: values, places, gradients, errors, layers."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn as nn
import facula.nn.functional as F
from tests.nn.functional_cases import compare, f

SIZES = (9, 8, 7)
MAX = [(3, {}), (2, {"stride": 3, "ceil_mode": True}), (3, {"padding": 1, "stride": 2}),
       (3, {"dilation": 2, "padding": 1, "stride": 1}),
       (3, {"stride": 2, "padding": 1, "ceil_mode": True, "dilation": 2})]
AVG = [(3, {}), (2, {"stride": 3, "ceil_mode": True}), (3, {"padding": 1, "stride": 2}),
       (3, {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False})]


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kernel,options", MAX, ids=str)
def test_max_pool(d, kernel, options):
    torch = pytest.importorskip("torch")
    name = f"max_pool{d}d"
    x = f(2, 3, *SIZES[:d])
    compare(lambda F, x: getattr(F, name)(x, kernel, **options), (x,), "float64", 1e-12)
    _, have = getattr(F, name)(facula.tensor(x[0]), kernel, **options, return_indices=True)
    _, want = getattr(torch.nn.functional, name)(torch.tensor(x[0]), kernel, **options,
                                                 return_indices=True)
    assert have.dtype is facula.int64
    np.testing.assert_array_equal(have.numpy(), want.numpy())


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kernel,options", AVG, ids=str)
def test_avg_pool(d, kernel, options):
    for lead in ((2, 3), (3,)):
        compare(lambda F, x: getattr(F, f"avg_pool{d}d")(x, kernel, **options),
                (f(*lead, *SIZES[:d]),), "float64", 1e-12)


def test_large_windows():
    for call in (lambda F, x: F.max_pool2d(x, (13, 9), stride=2, padding=(4, 3)),
                 lambda F, x: F.avg_pool2d(x, (13, 9), stride=2, padding=(4, 3)),
                 lambda F, x: F.max_pool2d(x, 9, dilation=2, padding=4),
                 lambda F, x: F.avg_pool2d(x, 9, divisor_override=5)):
        compare(call, (f(1, 2, 17, 17),), "float64", 1e-12)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("out", [1, 3, (5, 8, 2), (4, None, 11)], ids=str)
def test_adaptive(d, out):
    torch = pytest.importorskip("torch")
    size = out[:d] if isinstance(out, tuple) else out
    x = f(2, 3, *SIZES[:d])
    for kind in ("avg", "max"):
        name = f"adaptive_{kind}_pool{d}d"
        compare(lambda F, x, name=name: getattr(F, name)(x, size), (x,), "float64", 1e-12)
    _, have = getattr(F, name)(facula.tensor(x), size, return_indices=True)
    _, want = getattr(torch.nn.functional, name)(torch.tensor(x), size, return_indices=True)
    np.testing.assert_array_equal(have.numpy(), want.numpy())


@pytest.mark.parametrize("d", [1, 2, 3])
def test_lp_pool(d):
    for args in ((2.0, 2), (3.0, 3, 2, True)):
        compare(lambda F, x, args=args: getattr(F, f"lp_pool{d}d")(x, *args),
                (f(2, 3, *SIZES[:d], low=0.5),), "float64", 1e-9)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_max_unpool(d):
    torch = pytest.importorskip("torch")
    x = f(2, 3, *SIZES[:d])
    _, where = getattr(torch.nn.functional, f"max_pool{d}d")(torch.tensor(x), 2,
                                                             return_indices=True)

    def call(F, v, at):
        return getattr(F, f"max_unpool{d}d")(v, at, 2, output_size=SIZES[:d])
    compare(call, (f(*where.shape), where.numpy()), "float64", 1e-12)


def test_odd_values():
    """NaN is the largest; a window of -inf names an element of its own; ties name the first."""
    torch = pytest.importorskip("torch")
    rows = np.array([[1, np.nan, 2, 3, np.nan, np.nan], [-np.inf] * 6, [4.0] * 6, [np.inf] * 6])
    for name, args in (("max_pool1d", (3, 1, 1)), ("max_pool1d", (2,)),
                       ("adaptive_max_pool1d", (4,))):
        have = getattr(F, name)(facula.tensor(rows), *args)
        want = getattr(torch.nn.functional, name)(torch.tensor(rows), *args)
        np.testing.assert_array_equal(have.numpy(), want.numpy())
    _, at = F.max_pool1d(facula.tensor(rows[1:]), 3, 2, 1, return_indices=True)
    _, want = torch.nn.functional.max_pool1d(torch.tensor(rows[1:]), 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(at.numpy(), want.numpy())


def test_integers_and_empty():
    torch = pytest.importorskip("torch")
    x = np.arange(-18, 18).reshape(1, 1, 6, 6)
    for name in ("max_pool2d", "avg_pool2d"):
        for args in ((2,), (3, 2, 1)):
            have = getattr(F, name)(facula.tensor(x), *args)
            want = getattr(torch.nn.functional, name)(torch.tensor(x), *args)
            np.testing.assert_array_equal(have.numpy(), want.numpy())
        assert tuple(getattr(F, name)(facula.ones(0, 2, 4, 4), 2).shape) == (0, 2, 2, 2)
    assert tuple(F.adaptive_avg_pool2d(facula.ones(2, 3, 4, 4), (0, 2)).shape) == (2, 3, 0, 2)
    assert tuple(F.adaptive_max_pool2d(facula.ones(2, 3, 4, 4), (0, 2)).shape) == (2, 3, 0, 2)


@pytest.mark.parametrize("call", [
    lambda x: F.max_pool2d(x, 2, stride=1), lambda x: F.avg_pool2d(x, 2, stride=1, padding=1),
    lambda x: F.adaptive_max_pool2d(x, 2), lambda x: F.adaptive_avg_pool2d(x, 2),
    lambda x: F.lp_pool2d(x, 3.0, 2)])
def test_gradcheck(call):
    """First and second derivatives against finite differences."""
    x = facula.tensor(np.random.default_rng(0).permutation(9).reshape(1, 1, 3, 3) / 5.0 + 0.5,
                      requires_grad=True)
    assert facula.autograd.gradcheck(call, (x,))
    assert facula.autograd.gradgradcheck(call, (x,))


ERRORS = [(lambda F, r: F.max_pool2d(r(1, 3, 6, 6), 7), "Output size is too small"),
          (lambda F, r: F.avg_pool2d(r(1, 3, 6, 6), 2, padding=2), "pad should be at most half"),
          (lambda F, r: F.max_pool2d(r(1, 3, 6, 6), 2, 0), "stride should not be zero"),
          (lambda F, r: F.max_pool2d(r(1, 3, 6, 6), (2, 2, 2)), "kernel_size must either be a"),
          (lambda F, r: F.max_pool2d(r(1, 3, 6, 6), 2, padding=-1), "pad must be non-negative"),
          (lambda F, r: F.max_pool2d(r(1, 3, 6, 6), 2, dilation=0), "should be greater than zero"),
          (lambda F, r: F.avg_pool2d(r(1, 3, 6, 6), 2, divisor_override=0), "must be not zero"),
          (lambda F, r: F.avg_pool2d(r(2, 0, 6, 6), 2), "with optional 0 dim batch size"),
          (lambda F, r: F.adaptive_avg_pool2d(r(6), 2), "Expected 3D or 4D tensor, but got"),
          (lambda F, r: F.adaptive_max_pool2d(r(2, 2, 0, 0), 2), "with dimension 2 being empty")]


@pytest.mark.parametrize("call,message", ERRORS, ids=lambda e: e if isinstance(e, str) else "")
def test_errors(call, message):
    torch = pytest.importorskip("torch")
    for functional, ones in ((torch.nn.functional, torch.ones), (F, facula.ones)):
        with pytest.raises(RuntimeError, match=message):
            call(functional, ones)


LAYERS = [("MaxPool1d", (2,), {}), ("MaxPool2d", ((3, 2), 2), {"ceil_mode": True}),
          ("MaxPool3d", (2,), {"padding": 1, "dilation": 1}), ("AvgPool1d", (2,), {}),
          ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "divisor_override": 4}),
          ("AvgPool3d", ((2, 3, 2),), {}), ("AdaptiveMaxPool1d", (3,), {}),
          ("AdaptiveMaxPool2d", ((3, None),), {}), ("AdaptiveMaxPool3d", (2,), {}),
          ("AdaptiveAvgPool1d", (3,), {}), ("AdaptiveAvgPool2d", (1,), {}),
          ("AdaptiveAvgPool3d", ((3, 2, None),), {}), ("LPPool1d", (2, 3), {"stride": 2}),
          ("LPPool2d", (2, 2), {}), ("LPPool3d", (2, 2), {})]


@pytest.mark.parametrize("name,args,kwargs", LAYERS, ids=str)
def test_layers(name, args, kwargs):
    torch = pytest.importorskip("torch")
    want, have = getattr(torch.nn, name)(*args, **kwargs), getattr(nn, name)(*args, **kwargs)
    assert repr(have) == repr(want)
    x = f(2, 4, *(6,) * int(name[-2])).astype("float32")
    np.testing.assert_allclose(have(facula.tensor(x)).numpy(), want(torch.tensor(x)).numpy(),
                               rtol=1e-5, atol=1e-6)


def test_there_and_back():
    pool, back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    x = facula.tensor(f(1, 2, 4, 4))
    values, at = pool(x)
    whole = back(values, at)
    assert repr(back) == "MaxUnpool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))"
    assert tuple(whole.shape) == (1, 2, 4, 4)
    np.testing.assert_array_equal(F.max_pool2d(whole, 2).numpy(),
                                  np.maximum(values.numpy(), 0))
