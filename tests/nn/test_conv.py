"""Convolutions against PyTorch and finite differences: values, gradients, errors, layers."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn as nn
import facula.nn.functional as F
from tests.nn.functional_cases import compare, f

PLAIN = [{}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"padding": "valid"},
         {"dilation": 2, "padding": "same"}, {"stride": 2, "padding": 2, "dilation": 2},
         {"groups": 2}, {"groups": 2, "stride": 2, "padding": 1}]
TRANSPOSED = [{}, {"stride": 2}, {"padding": 1}, {"stride": 3, "output_padding": 2, "padding": 1},
              {"dilation": 2, "stride": 2}, {"groups": 2, "stride": 2, "padding": 1}]
SIZES, KERNEL = (7, 6, 5), (3, 2, 3)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even:UserWarning")
@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_conv(d, options):
    weight = f(4, 4 // options.get("groups", 1), *KERNEL[:d])
    for lead in ((2,), ()):
        compare(lambda F, x, w, b: getattr(F, f"conv{d}d")(x, w, b, **options),
                (f(*lead, 4, *SIZES[:d]), weight, f(4)), "float64", 1e-9)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_conv_transpose(d, options):
    weight = f(4, 3, *KERNEL[:d])
    bias = f(3 * options.get("groups", 1))
    for lead in ((2,), ()):
        compare(lambda F, x, w, b: getattr(F, f"conv_transpose{d}d")(x, w, b, **options),
                (f(*lead, 4, *SIZES[:d]), weight, bias), "float64", 1e-9)


def test_large_kernel():
    compare(lambda F, x, w: F.conv1d(x, w, padding=40), (f(1, 2, 90), f(3, 2, 81)), "float64",
            1e-9)
    compare(lambda F, x, w: F.conv2d(x, w, stride=(2, 1), groups=2),
            (f(2, 2, 14, 11), f(2, 1, 9, 8)), "float64", 1e-9)


@pytest.mark.parametrize("name,tol", [("float32", 2e-5), ("float64", 1e-9)])
def test_empty(name, tol):
    compare(lambda F, x, w: F.conv2d(x, w), (f(0, 3, 5, 5), f(4, 3, 3, 3)), name, tol)
    none = F.conv2d(facula.ones(1, 0, 5, 5), facula.ones(4, 0, 3, 3), facula.ones(4))
    np.testing.assert_array_equal(none.numpy(), np.ones((1, 4, 3, 3)))


def test_half_and_integers():
    torch = pytest.importorskip("torch")
    x, w = f(2, 3, 5, 5).astype("float32"), f(3, 3, 3, 3).astype("float32")
    for name in ("conv2d", "conv_transpose2d"):
        have = getattr(F, name)(facula.tensor(x).half(), facula.tensor(w).half())
        want = getattr(torch.nn.functional, name)(torch.tensor(x).half(), torch.tensor(w).half())
        assert have.dtype is facula.float16
        np.testing.assert_allclose(have.float().numpy(), want.float().numpy(), rtol=4e-3,
                                   atol=4e-2)
    have = F.conv2d(facula.tensor(x).long(), facula.tensor(w).long())
    want = torch.nn.functional.conv2d(torch.tensor(x).long(), torch.tensor(w).long())
    np.testing.assert_array_equal(have.numpy(), want.numpy())


@pytest.mark.parametrize("call", [
    lambda x, w: F.conv2d(x, w, stride=2, padding=1), lambda x, w: F.conv_transpose2d(
        x, w, stride=2, padding=1, output_padding=1)])
def test_gradcheck(call):
    """First and second derivatives against finite differences."""
    x = facula.tensor(f(1, 2, 3, 3), requires_grad=True)
    w = facula.tensor(f(2, 2, 2, 2), requires_grad=True)
    assert facula.autograd.gradcheck(call, (x, w))
    assert facula.autograd.gradgradcheck(call, (x, w))


ERRORS = [
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 2, 3, 3)), "to have 2 channels, but got 3 channels"),
    (lambda F, r: F.conv2d(r(3, 5), r(4, 2, 3, 3)), "Expected 3D \\(unbatched\\) or 4D"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 6, 3)), "Kernel size can't be greater"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 3, 3), r(5)), "expected bias to be 1-dim"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 3, 3), stride=0), "non-positive stride"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 3, 3), stride=(1, 1, 1)), "expected stride to"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 3, 3), padding=-1), "negative padding"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 3, 3), dilation=0), "dilation should be great"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 3, 3), groups=0), "non-positive groups"),
    (lambda F, r: F.conv2d(r(1, 4, 5, 5), r(3, 2, 3, 3), groups=2), "to be divisible by 2"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 3, 3), padding="foo"), "Invalid padding string"),
    (lambda F, r: F.conv2d(r(1, 3, 5, 5), r(4, 3, 3, 3), padding="same", stride=2),
     "not supported for strided"),
    (lambda F, r: F.conv_transpose2d(r(1, 3, 5, 5), r(4, 2, 3, 3)), "Given transposed=1"),
    (lambda F, r: F.conv_transpose2d(r(1, 3, 5, 5), r(3, 2, 3, 3), output_padding=1),
     "output padding must be smaller than either stride or dilation"),
    (lambda F, r: F.conv_transpose2d(r(1, 3, 5, 5), r(3, 2, 3, 3), padding=6), "is too small"),
]


@pytest.mark.parametrize("call,message", ERRORS, ids=lambda e: e if isinstance(e, str) else "")
def test_errors(call, message):
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match=message):
        call(torch.nn.functional, torch.ones)
    with pytest.raises(RuntimeError, match=message):
        call(F, facula.ones)


def test_dtypes_must_agree():
    with pytest.raises(RuntimeError, match="should be the same"):
        F.conv1d(facula.ones(1, 1, 3), facula.ones(1, 1, 1, dtype=facula.float64))


LAYERS = [("Conv1d", (4, 6, 3), {}), ("Conv2d", (4, 6, (3, 2)), {"stride": 2, "padding": (1, 0)}),
          ("Conv2d", (4, 6, 3), {"padding": "same", "groups": 2, "bias": False}),
          ("Conv2d", (4, 6, 3), {"padding": (1, 2), "padding_mode": "circular"}),
          ("Conv1d", (4, 6, 4), {"padding": "same", "padding_mode": "reflect"}),
          ("Conv3d", (4, 2, 2), {"dilation": 2, "padding": 1, "padding_mode": "replicate"}),
          ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}),
          ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "groups": 2}),
          ("ConvTranspose3d", (4, 2, 2), {"bias": False, "dilation": 2})]


@pytest.mark.parametrize("name,args,kwargs", LAYERS, ids=str)
def test_layers(name, args, kwargs):
    torch = pytest.importorskip("torch")
    want, have = getattr(torch.nn, name)(*args, **kwargs), getattr(nn, name)(*args, **kwargs)
    assert repr(have) == repr(want)
    assert list(have.state_dict()) == list(want.state_dict())
    for (_, p), q in zip(have.named_parameters(), want.parameters(), strict=True):
        assert tuple(p.shape) == tuple(q.shape)
        bound = 1 / np.sqrt(np.prod(want.weight.shape[1:]))
        assert np.abs(p.detach().numpy()).max() <= bound
    have.load_state_dict({k: facula.tensor(v.numpy()) for k, v in want.state_dict().items()})
    x = f(2, 4, *(6,) * int(name[-2])).astype("float32")
    np.testing.assert_allclose(have(facula.tensor(x)).detach().numpy(),
                               want(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_output_size():
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    x = facula.ones(1, 2, 4, 4)
    assert tuple(layer(x).shape) == (1, 3, 7, 7)
    assert tuple(layer(x, output_size=(8, 7)).shape) == (1, 3, 8, 7)
    with pytest.raises(ValueError, match="valid sizes range from"):
        layer(x, output_size=(9, 9))


def test_layer_arguments():
    for kwargs, message in (({"groups": 3}, "in_channels must be divisible by groups"),
                            ({"padding": "foo"}, "Invalid padding string"),
                            ({"padding_mode": "foo"}, "padding_mode must be one of")):
        with pytest.raises(ValueError, match=message):
            nn.Conv2d(4, 4, 3, **kwargs)


@pytest.mark.parametrize("pad", [0, 2])
def test_time_first(pad):
    compare(lambda F, x, w, b: F.conv_tbc(x, w, b, pad), (f(7, 2, 3), f(3, 3, 4), f(4)),
            "float64", 1e-12)
    with pytest.raises(RuntimeError, match="3 dims"):
        F.conv_tbc(facula.ones(2, 2), facula.ones(1, 2, 2), facula.ones(2))
