"""Autocast: dtypes as PyTorch's on a CPU, for every operation of the registry."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import facula
from facula import amp, autocast, nn
from facula.amp.autocast_mode import custom_bwd, custom_fwd
from facula.nn import functional as F
from facula.ops.define import OPS

F32, BF16, F16, F64 = facula.float32, facula.bfloat16, facula.float16, facula.float64


# ---------------------------------------------------------------- which operation in which dtype

def made(*shape, dtype=None, low=-2.0, high=2.0, **_):
    rng = np.random.default_rng(0)
    if dtype is not None and dtype.kind == "b":
        return facula.tensor(rng.integers(0, 2, shape).astype(bool))
    if dtype is not None and dtype.kind == "c":
        return facula.tensor((rng.standard_normal(shape) + 0j).astype(dtype.np))
    if dtype is not None and dtype.kind != "f":
        return facula.tensor(rng.integers(max(0, int(low)), max(int(high), 1),
                                          shape).astype(dtype.np))
    return facula.tensor(rng.uniform(low, high, shape).astype(np.float32))


def mapped(value, fn):
    if isinstance(value, facula.Tensor):
        return fn(value)
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(v, fn) for v in value)
    return value


def lowered(t):
    return t.bfloat16() if t.dtype is F32 else t


def dtype_of(fn, args, kwargs):
    try:
        out = fn(*args, **kwargs)
    except Exception:
        return "raises"
    while isinstance(out, (list, tuple)):
        out = out[0]
    return str(out.dtype).rpartition(".")[2] if hasattr(out, "dtype") else "no tensor"


def listed():
    """The operations that are declared with a precision, and which."""
    return {n: r.fn.autocast for n, r in OPS.items() if hasattr(r.fn, "autocast")}


def torchs(torch, name):
    if name.startswith("functional."):
        return getattr(torch.nn.functional, name[11:], None)
    if "." in name:
        room, _, name = name.partition(".")
        return getattr(getattr(torch, room), name, None)
    return getattr(torch, name, None) or getattr(torch.Tensor, name, None)


def to_torch(torch):
    def convert(t):
        array = np.array(t._peek().astype(np.float32) if t.dtype is BF16 else t._peek())
        out = torch.from_numpy(array.copy())
        return out.bfloat16() if t.dtype is BF16 else out
    return convert


# Operations that agree only where no autocast is on, each with what differs.
APART = {
    "functional.gaussian_nll_loss", "linalg.pinv",      # theirs raise for bfloat16
    "cov", "corrcoef",                  # means are taken before the product, here in float32
    "view_as_complex",                  # a view of what was given
}


def samples():
    return sorted(n for n, r in OPS.items() if r.samples is not None and n not in APART)


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
def test_dtypes_are_torchs(low):
    torch = pytest.importorskip("torch")
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in samples():
            other = torchs(torch, name)
            if other is None:
                continue
            try:
                args, kwargs = OPS[name].samples(made)[0]
            except (TypeError, IndexError):
                continue
            if low:
                args = mapped(tuple(args), lowered)
            theirs = mapped(tuple(args), to_torch(torch))
            options = {k: mapped(v, to_torch(torch)) for k, v in kwargs.items()}
            plain = dtype_of(other, theirs, options)
            with torch.autocast("cpu", torch.bfloat16):
                want = dtype_of(other, theirs, options)
            with autocast("cpu", BF16):
                have = dtype_of(OPS[name].fn, args, kwargs)
            same = dtype_of(OPS[name].fn, args, kwargs) == plain
            if want not in (have, "raises") and (same or name in listed()):
                wrong.append(f"{name}: {have}, torch {want} ({plain} without autocast)")
    assert not wrong, "\n".join(wrong)


def test_each_precision_is_one_that_autocast_knows():
    assert set(listed().values()) == {"lower", "full", "widest"}
    for name, kind in (("matmul", "lower"), ("linalg.svd", "full"), ("functional.mse_loss", "full"),
                       ("cat", "widest"), ("fft.rfft", "full")):
        assert listed()[name] == kind


# ---------------------------------------------------------------- what autocast does

@pytest.mark.parametrize("dtype", [BF16, F16])
def test_products_are_lowered_and_losses_are_not(dtype):
    x, w = facula.randn(3, 4), facula.randn(5, 4)
    for _ in range(3):                  # recorded, and followed
        with autocast("cpu", dtype):
            y = F.linear(x, w)
            assert y.dtype is dtype and (x @ w.T).dtype is dtype
            assert F.mse_loss(y, y * 2).dtype is F32
            assert y.softmax(-1).dtype is dtype and (x + 1).dtype is F32
            assert (x.double() @ w.T.double()).dtype is F64
            assert facula.cat([x, x.to(dtype)]).dtype is F32
            assert facula.stack([x.to(dtype)] * 2).dtype is dtype
            assert facula.einsum("ij,kj->ik", x, w.to(dtype)).dtype is dtype
            assert x.int().matmul(w.T.int()).dtype is facula.int32
        assert F.linear(x, w).dtype is F32
        with pytest.raises(RuntimeError):
            F.linear(x.to(dtype), w)
    want = (x.to(dtype) @ w.T.to(dtype)).float()
    np.testing.assert_array_equal(y.float().tolist(), want.tolist())


def test_nesting_and_what_is_said_of_it():
    x = facula.randn(2, 2)
    assert not facula.is_autocast_enabled()
    with autocast("cpu"):
        assert facula.is_autocast_enabled() and facula.get_autocast_dtype("cpu") is BF16
        with autocast("cpu", enabled=False):
            assert not facula.is_autocast_enabled("cpu")
            assert (x @ x).dtype is F32
        with autocast("cpu", F16):
            assert (x @ x).dtype is F16 and facula.get_autocast_dtype("cpu") is F16
        assert (x @ x).dtype is BF16
        with pytest.raises(ZeroDivisionError):
            with autocast("cpu", F16):
                raise ZeroDivisionError
        assert (x @ x).dtype is BF16
    assert (x @ x).dtype is F32

    @autocast("cpu")
    def product(a):
        """Documented."""
        return a @ a

    assert product(x).dtype is BF16 and product.__doc__ == "Documented."
    facula.set_autocast_enabled("cpu", True)
    try:
        facula.set_autocast_dtype("cpu", F16)
        assert (x @ x).dtype is F16
    finally:
        facula.set_autocast_enabled("cpu", False)
        facula.set_autocast_dtype("cpu", BF16)


def test_a_flush_inside_does_not_end_it():
    x = facula.randn(2, 2)
    with autocast("cpu"):
        y = x @ x
        y.tolist()
        assert (x @ x).dtype is BF16 and (y @ x).dtype is BF16
        y.tolist()
    y.tolist()
    assert (x @ x).dtype is F32


def test_bad_arguments():
    with pytest.raises(ValueError, match="device_type"):
        autocast(BF16)
    with pytest.raises(RuntimeError, match="unsupported autocast device_type"):
        autocast("abacus")
    with pytest.warns(UserWarning, match="not available"):
        off = autocast("cuda")
    with pytest.warns(UserWarning, match="only supports"):
        other = autocast("cpu", F64)
    x = facula.ones(2, 2)
    for context in (off, other):
        with context:
            assert (x @ x).dtype is F32
    assert amp.is_autocast_available("cpu") and not amp.is_autocast_available("cuda")


# ---------------------------------------------------------------- gradients and models

def test_gradients_have_the_parameters_dtype():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, t = facula.randn(6, 4), facula.tensor([0, 1, 2, 0, 1, 2])
    for inside in (False, True, False):
        model.zero_grad()
        with autocast("cpu"):
            loss = F.cross_entropy(model(x), t)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        got = [p.grad for p in model.parameters()]
        assert all(g.dtype is F32 for g in got)
    model.zero_grad()
    F.cross_entropy(model(x), t).backward()
    for g, p in zip(got, model.parameters(), strict=True):
        np.testing.assert_allclose(g.tolist(), p.grad.tolist(), atol=0.02)


class Half(nn.Module):
    """A layer that is given what another one made under autocast."""

    def __init__(self, lib, layer):
        super().__init__()
        self.first, self.layer = lib.nn.Linear(8, 8), layer

    def forward(self, x):
        return self.layer(self.first(x))


LAYERS = {
    "linear": lambda n: n.Linear(8, 4), "norm": lambda n: n.LayerNorm(8),
    "batch": lambda n: n.BatchNorm1d(5), "conv": lambda n: n.Conv1d(5, 3, 3),
    "prelu": lambda n: n.PReLU(), "group": lambda n: n.GroupNorm(1, 5),
    "lstm": lambda n: n.LSTM(8, 6), "rnn": lambda n: n.RNN(8, 6), "gelu": lambda n: n.GELU(),
    "encoder": lambda n: n.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    "bilinear": lambda n: n.Sequential(n.Unflatten(2, (2, 4)), n.MaxPool2d(2), n.Flatten()),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_layers_in_a_chain(name):
    torch = pytest.importorskip("torch")
    theirs = LAYERS[name](torch.nn)
    first = torch.nn.Linear(8, 8)
    ours = LAYERS[name](nn)
    ours.load_state_dict({k: facula.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    second = nn.Linear(8, 8)
    second.load_state_dict({k: facula.tensor(v.numpy()) for k, v in first.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)

    def value(lib, a, b):
        with lib.autocast("cpu", lib.bfloat16):
            out = b(a(lib.tensor(x)))
        out = out[0] if isinstance(out, tuple) else out
        out.float().sum().backward()
        return out, a.weight.grad

    want, have = value(torch, first, theirs), value(facula, second, ours)
    assert str(have[0].dtype).rpartition(".")[2] == str(want[0].dtype).rpartition(".")[2]
    np.testing.assert_allclose(have[0].detach().float().numpy(),
                               want[0].detach().float().numpy(), atol=0.08)
    assert have[1].dtype is F32


def test_custom_functions():
    seen = []

    class Square(facula.autograd.Function):
        @staticmethod
        @custom_fwd(device_type="cpu", cast_inputs=F32)
        def forward(ctx, x):
            seen.append((x.dtype, facula.is_autocast_enabled()))
            ctx.save_for_backward(x)
            return x @ x

        @staticmethod
        @custom_bwd(device_type="cpu")
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            seen.append((g.dtype, facula.is_autocast_enabled()))
            return g @ x.T + x.T @ g

    class Product(facula.autograd.Function):
        @staticmethod
        @custom_fwd(device_type="cpu")
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x @ x

        @staticmethod
        @custom_bwd(device_type="cpu")
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            out = g @ x.T
            seen.append((out.dtype, facula.is_autocast_enabled()))
            return out

    x = facula.ones(2, 2, requires_grad=True)
    with autocast("cpu"):
        y = Square.apply(x @ x)
        z = Product.apply(x)
    assert y.dtype is F32 and z.dtype is BF16
    y.sum().backward()
    z.float().sum().backward()
    assert seen == [(F32, False), (F32, False), (BF16, True)]


def test_checkpoints_recompute_under_the_same_autocast():
    from facula.utils.checkpoint import checkpoint
    layer = nn.Linear(3, 3)
    seen = []

    def fn(t):
        y = layer(t)
        seen.append(y.dtype)
        return y

    x = facula.ones(2, 3, requires_grad=True)
    with autocast("cpu"):
        y = checkpoint(fn, x, use_reentrant=False)
    y.float().sum().backward()
    assert seen == [BF16, BF16] and x.grad.dtype is F32


def test_compiled_functions_are_captured_for_each_mode():
    x, w = facula.randn(3, 3), facula.randn(3, 3)
    product = facula.compile(lambda a, b: a @ b)

    @facula.compile
    def inside(a, b):
        with autocast("cpu"):
            return a @ b

    for k in range(8):
        with autocast("cpu", enabled=k % 2 == 0):
            assert product(x, w).dtype is (BF16 if k % 2 == 0 else F32)
            assert facula.is_autocast_enabled() is (k % 2 == 0)
        assert inside(x, w).dtype is BF16
        assert not facula.is_autocast_enabled()
    assert product.replays >= 4 and inside.replays >= 4


def test_function_transforms_are_under_it():
    w, x = facula.randn(2, 2), facula.randn(3, 2, 2)
    for inside in (True, False):
        with autocast("cpu", enabled=inside):
            assert facula.func.vmap(lambda t: t @ w)(x).dtype is (BF16 if inside else F32)
            assert facula.func.grad(lambda t: (t @ w).float().sum())(x[0]).dtype is F32


def test_casts_of_a_weight_are_merged():
    from facula.graph.record import recorder
    from facula.schedule.simplify import simplify
    x, w = facula.randn(3, 3), facula.randn(3, 3)
    with autocast("cpu"):
        y = (x @ w).float() + (x.sin() @ w).float()     # casts x, w and x.sin()
    graph = recorder().graph
    steps, _, _ = simplify(graph.path(), (y._node.at[1],))
    assert sum(s.op == "cast" and s.spec.dtype is BF16 for s in steps) == 3
