"""`facula.nn.functional`: values and gradients against PyTorch's, in both floating widths."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from tests.nn.functional_cases import ACTIVATIONS, LAYERS, compare

FLOATS = [("float64", 1e-9), ("float32", 2e-5)]


@pytest.mark.parametrize("name,tol", FLOATS)
@pytest.mark.parametrize("case", ACTIVATIONS + LAYERS, ids=lambda c: c[0])
def test_matches_torch(case, name, tol):
    # PyTorch computes these two with float32 constants, whatever the width.
    loose = max(tol, 1e-7) if case[0].startswith(("hardsigmoid", "celu")) else tol
    compare(case[1], case[2], name, loose)


ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-300, -1e-300, 100.0, -100.0, 800.0, -800.0,
                20.0, -20.0])
SMOOTH = ["relu", "relu6", "elu", "selu", "celu", "leaky_relu", "gelu", "silu", "mish",
          "softplus", "softsign", "hardtanh", "hardsigmoid", "hardswish", "logsigmoid",
          "softshrink", "hardshrink", "tanhshrink"]


@pytest.mark.parametrize("name", SMOOTH)
def test_odd_values(name):
    """NaN, infinities, zeros and large numbers: values as PyTorch's, and no NaN from 0 * inf."""
    torch = pytest.importorskip("torch")
    x = torch.tensor(ODD, requires_grad=True)
    want = getattr(torch.nn.functional, name)(x)
    want.sum().backward()
    y = facula.tensor(ODD, requires_grad=True)
    have = getattr(F, name)(y)
    have.sum().backward()
    np.testing.assert_allclose(have.detach().numpy(), want.detach().numpy(), rtol=1e-7)
    good = ~np.isnan(x.grad.numpy()) & ~np.isnan(ODD)
    np.testing.assert_allclose(y.grad.numpy()[good], x.grad.numpy()[good], rtol=1e-6, atol=1e-12)


HALF = ["relu", "gelu", "silu", "mish", "softplus", "elu", "selu", "logsigmoid", "hardswish",
        "leaky_relu"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_rounded_once(name, dtype):
    torch = pytest.importorskip("torch")
    values = np.linspace(-6, 6, 101, dtype=np.float32)
    x = facula.tensor(values).to(getattr(facula, dtype))
    out = getattr(F, name)(x)
    assert out.dtype == getattr(facula, dtype)
    t = torch.tensor(values).to(getattr(torch, dtype))
    want = getattr(torch.nn.functional, name)(t).float().numpy()
    step = 2e-3 if dtype == "float16" else 1.6e-2
    np.testing.assert_allclose(out.float().numpy(), want, rtol=step, atol=step / 16)


def test_inplace_forms():
    for name in ("relu", "relu6", "elu", "selu", "celu", "leaky_relu", "silu", "mish",
                 "hardtanh", "hardsigmoid", "hardswish"):
        x = facula.tensor([-2.0, -0.5, 0.0, 3.0, 7.0])
        want = getattr(F, name)(x).numpy().copy()
        assert getattr(F, name)(x, inplace=True) is x
        np.testing.assert_array_equal(x.numpy(), want)
    x = facula.tensor([-2.0, 3.0])
    assert F.threshold_(x, 0.0, 5.0) is x and x.tolist() == [5.0, 3.0]
    x = facula.tensor([-2.0, 3.0])
    assert x.relu_() is x and x.tolist() == [0.0, 3.0]
    leaf = facula.tensor([1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        F.relu_(leaf)


def test_wrong_calls_raise_as_in_pytorch():
    x = facula.ones(3, 3)
    cases = [
        (RuntimeError, "Halving dimension must be even", lambda: F.glu(x)),
        (RuntimeError, "Mismatch of parameter numbers", lambda: F.prelu(x, facula.ones(2))),
        (RuntimeError, "approximate", lambda: F.gelu(x, approximate="x")),
        (RuntimeError, "not implemented for 'Long'", lambda: F.gelu(x.long())),
        (RuntimeError, "normalized_shape", lambda: F.layer_norm(x, (4,))),
        (RuntimeError, "divisible by num_groups", lambda: F.group_norm(x, 2)),
        (ValueError, "more than 1 value per channel",
         lambda: F.batch_norm(x[:1], None, None, training=True)),
        (RuntimeError, "running_mean should contain 3 elements",
         lambda: F.batch_norm(x, facula.ones(2), facula.ones(3))),
        (ValueError, "between 0 and 1", lambda: F.dropout(x, 1.5)),
        (IndexError, "out of range", lambda: F.softmax(x, 2)),
        (RuntimeError, "Padding length must be divisible by 2", lambda: F.pad(x, (1,))),
        (RuntimeError, "less than the corresponding", lambda: F.pad(x, (4, 0), "reflect")),
        (RuntimeError, "scalar types: Long, Int", lambda: F.embedding(x, x)),
        (ValueError, "not a valid value for reduction",
         lambda: F.mse_loss(x, x, reduction="avg")),
        (RuntimeError, "mat1 and mat2 shapes cannot be multiplied \\(3x3 and 4x2\\)",
         lambda: F.linear(x, facula.ones(2, 4))),
        (RuntimeError, "same dtype", lambda: F.linear(x.double(), x)),
    ]
    for kind, match, call in cases:
        with pytest.raises(kind, match=match):
            call()


def test_embedding_out_of_range():
    with pytest.raises(IndexError):
        F.embedding(facula.tensor([0, 3]), facula.ones(3, 2)).numpy()


def test_embedding_max_norm_scales_the_rows_it_reads():
    torch = pytest.importorskip("torch")
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    w, t = facula.tensor(values), torch.tensor(values)
    index = [[3, 1], [1, 0]]
    have = F.embedding(facula.tensor(index), w, max_norm=2.0)
    want = torch.nn.functional.embedding(torch.tensor(index), t, max_norm=2.0)
    np.testing.assert_allclose(have.numpy(), want.numpy(), rtol=1e-6)
    np.testing.assert_allclose(w.numpy(), t.numpy(), rtol=1e-6)


def test_running_statistics():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).standard_normal((4, 3, 5)).astype(np.float32)
    for name, kw in (("batch_norm", {"training": True}), ("instance_norm", {})):
        stats = []
        for lib, functional in ((facula, F), (torch, torch.nn.functional)):
            mean, var = lib.zeros(3), lib.ones(3)
            for _ in range(2):
                getattr(functional, name)(lib.tensor(x), mean, var, momentum=0.3, **kw)
            stats.append((mean.numpy(), var.numpy()))
        np.testing.assert_allclose(stats[0], stats[1], rtol=1e-5, atol=1e-6)
