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


def test_means_of_integers_are_rounded_towards_zero():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(2).integers(-9, 10, (2, 3, 6, 5, 4))
    for d, divisors in ((1, (None,)), (2, (None, 3, -2)), (3, (None, 3, -2))):
        part = x.reshape(2, -1, *x.shape[-d:])
        for divisor in divisors:
            more = {} if divisor is None else {"divisor_override": divisor}
            for options in ({}, {"padding": 1, "count_include_pad": False},
                            {"stride": 3, "ceil_mode": True}):
                have = getattr(F, f"avg_pool{d}d")(facula.tensor(part), 2, **options, **more)
                want = getattr(torch.nn.functional, f"avg_pool{d}d")(torch.tensor(part), 2,
                                                                     **options, **more)
                assert have.dtype is facula.int64
                np.testing.assert_array_equal(have.numpy(), want.numpy())


# ---------------------------------------------------------------- at random steps

FRACTIONS = [(2, 2), ((2, 3, 1), (3, 2, 4)), (1, 1), (3, 1), (1, 4), ((4, 1, 2), (3, 5, 1))]


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("kernel,out", FRACTIONS, ids=str)
def test_fractional(d, kernel, out):
    torch = pytest.importorskip("torch")
    kernel, out = (v[:d] if isinstance(v, tuple) else v for v in (kernel, out))
    rng = np.random.default_rng(3)
    name = f"fractional_max_pool{d}d"
    x = rng.standard_normal((2, 3, *(7, 6, 5)[:d])).round(1)        # with equal elements
    u = rng.random((2, 3, d))
    for dtype in ("float64", "float32"):
        for case in (x, x[:1], x[0], np.where(x > 1.5, np.nan, x)):
            a = torch.tensor(case.astype(dtype), requires_grad=True)
            b = facula.tensor(case.astype(dtype), requires_grad=True)
            want, places = getattr(torch.nn.functional, name)(
                a, kernel, out, return_indices=True, _random_samples=torch.tensor(u.astype(dtype)))
            have, ours = getattr(F, name)(
                b, kernel, out, return_indices=True, _random_samples=facula.tensor(u.astype(dtype)))
            assert ours.dtype is facula.int64
            np.testing.assert_array_equal(ours.numpy(), places.numpy())
            np.testing.assert_array_equal(have.detach().numpy(), want.detach().numpy())
            want.sum().backward()
            have.sum().backward()
            np.testing.assert_array_equal(b.grad.numpy(), a.grad.numpy())


@pytest.mark.parametrize("d", [2, 3])
def test_fractional_windows_lie_where_they_may(d):
    """Each element is the largest of a window, and windows go from one end to the other."""
    size, kernel, out = (9, 8, 7)[:d], (2, 3, 2)[:d], (4, 3, 5)[:d]
    x = facula.arange(int(np.prod(size))).reshape(1, 1, *size).float()
    name = f"fractional_max_pool{d}d"
    facula.manual_seed(0)
    seen = set()
    for _ in range(20):
        y, index = getattr(F, name)(x, kernel, out, return_indices=True)
        assert y.shape == (1, 1, *out)
        np.testing.assert_array_equal(y.long().numpy(), index.numpy())
        place = np.unravel_index(index.numpy()[0, 0], size)
        for k in range(d):
            line = np.moveaxis(place[k], k, 0).reshape(out[k], -1)
            assert (line == line[:, :1]).all() and (np.diff(line[:, 0]) >= 0).all()
            assert line[0, 0] == kernel[k] - 1 and line[-1, 0] == size[k] - 1
        seen.add(tuple(index.numpy().ravel()))
    assert len(seen) > 5
    layer = getattr(nn, f"FractionalMaxPool{d}d")(2, output_ratio=0.5, return_indices=True)
    y, index = layer(x[0])
    assert y.shape == index.shape == (1, *(n // 2 for n in size))
    assert getattr(F, name)(x[:0], 2, 2).shape == (0, 1, *(2,) * d)
    for call, kind in ((lambda: getattr(F, name)(x, 2), ValueError),
                       (lambda: getattr(F, name)(x, 5, 8), RuntimeError),
                       (lambda: getattr(F, name)(x.long(), 2, 2), RuntimeError),
                       (lambda: getattr(F, name)(x[0, 0], 2, 2), RuntimeError),
                       (lambda: getattr(F, name)(x, 2, 2, _random_samples=facula.rand(1, 2, d)),
                        RuntimeError),
                       (lambda: type(layer)(2), ValueError),
                       (lambda: type(layer)(2, 2, 0.5), ValueError),
                       (lambda: type(layer)(2, output_ratio=1.5), ValueError),
                       (lambda: type(layer)(0, 2), ValueError)):
        with pytest.raises(kind):
            call()


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


@pytest.mark.parametrize("shape,output,error", [
    ((2, 4, 4), (2, 2, 2), ValueError), ((4, 4), (2, 2), ValueError),
    ((1, 2, 4, 4), (2,), RuntimeError), ((1, 2, 4, 4), 2.5, TypeError),
    ((1, 2, 4, 4), (2, "a"), TypeError), ((4, 4), 2, RuntimeError)])
@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_sizes_that_do_not_fit_are_refused_as_pytorch_refuses_them(name, shape, output, error):
    with pytest.raises(error, match=name):
        getattr(F, name)(facula.ones(shape), output)
    torch = pytest.importorskip("torch")
    with pytest.raises(error):
        getattr(torch.nn.functional, name)(torch.ones(shape), output)


def test_channels_of_three_dimensions_may_be_empty():
    assert F.adaptive_max_pool3d(facula.ones(0, 3, 4, 4), 2).shape == (0, 2, 2, 2)
    with pytest.raises(RuntimeError, match="dimension 1 being empty"):
        F.adaptive_max_pool3d(facula.ones(2, 0, 3, 4, 4), 2)


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
