"""Transforms and their compositions: against torch.func, differences and loops."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import func, nn
from facula.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)
from facula.nn import functional as F

torch = None
try:
    import torch
    import torch.func
except ImportError:
    pass

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is the oracle")


def numbers(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).uniform(0.3, 1.7, shape).astype(dtype)


def both(*arrays):
    return ([facula.tensor(a) for a in arrays], [torch.tensor(a) for a in arrays])


def leaves(value):
    if isinstance(value, (tuple, list)):
        return [x for v in value for x in leaves(v)]
    if isinstance(value, dict):
        return [x for k in sorted(value) for x in leaves(value[k])]
    return [value]


def nesting(value):
    if isinstance(value, (tuple, list)):
        return type(value).__name__, [nesting(v) for v in value]
    return {k: nesting(v) for k, v in value.items()} if isinstance(value, dict) else None


def same(got, want, rtol=1e-6):
    assert nesting(got) == nesting(want)
    got, want = leaves(got), leaves(want)
    assert len(got) == len(want)
    for a, b in zip(got, want):
        a, b = np.asarray(a.detach().numpy()), np.asarray(b.detach().numpy())
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-9)


# What is written below with the names that both libraries have runs in both.

def scalar(x):
    return (x * x.sin()).sum() + (x[0] * x[1]).exp()


def vector(x):
    return x.exp() * x.flip(0) + x.cumsum(0)


COMPOSED = {
    "grad": lambda f: f.grad(scalar),
    "grad grad": lambda f: f.grad(lambda x: f.grad(scalar)(x).sum()),
    "grad grad grad": lambda f: f.grad(lambda x: f.grad(
        lambda y: f.grad(scalar)(y).sum())(x).pow(2).sum()),
    "jacrev": lambda f: f.jacrev(vector),
    "jacfwd": lambda f: f.jacfwd(vector),
    "hessian": lambda f: f.hessian(scalar),
    "jacfwd jacrev": lambda f: f.jacfwd(f.jacrev(vector)),
    "jacrev jacfwd": lambda f: f.jacrev(f.jacfwd(vector)),
    "jacfwd jacfwd": lambda f: f.jacfwd(f.jacfwd(vector)),
    "jacrev jacrev": lambda f: f.jacrev(f.jacrev(vector)),
    "hessian of hessian": lambda f: f.hessian(lambda x: f.hessian(scalar)(x).sum()),
    "jvp of vjp": lambda f: lambda x: f.jvp(lambda y: f.vjp(vector, y)[1](y)[0], (x,), (x * 2,)),
    "vjp of jvp": lambda f: lambda x: f.vjp(lambda y: f.jvp(vector, (y,), (y,))[1], x)[1](x),
    "jvp of grad": lambda f: lambda x: f.jvp(f.grad(scalar), (x,), (x.cos(),)),
    "grad of jvp": lambda f: f.grad(lambda x: f.jvp(scalar, (x,), (x.sin(),))[1]),
    "linearize": lambda f: lambda x: f.linearize(vector, x)[1](x.sin()),
    "linearize of grad": lambda f: lambda x: f.linearize(f.grad(scalar), x)[1](x),
    # PyTorch traces its linear part with the values of the moment: its jvp is the oracle.
    "grad of linearize": lambda f: f.grad(lambda x: (
        f.linearize(vector, x)[1](x * x) if f is func else f.jvp(vector, (x,), (x * x,))[1]
    ).sum()),
    "grad of vjp": lambda f: f.grad(lambda x: f.vjp(vector, x)[1](x * x)[0].sum()),
    "jvp with itself": lambda f: lambda x: f.jvp(
        lambda y: f.jvp(vector, (y,), (y * y,))[1], (x,), (x,)),
    "perturbation": lambda f: f.grad(lambda x: (x * f.grad(
        lambda y: (x * y).sum())(x.exp())).sum()),
}


@needs_torch
@pytest.mark.parametrize("name", COMPOSED)
def test_composition(name):
    (x,), (t,) = both(numbers(4))
    same(COMPOSED[name](func)(x), COMPOSED[name](torch.func)(t))
    # Once more: what was remembered gives the same.
    (x,), (t,) = both(numbers(4, seed=5))
    same(COMPOSED[name](func)(x), COMPOSED[name](torch.func)(t))


MAPPED = {
    "vmap": lambda f: f.vmap(vector),
    "vmap vmap": lambda f: f.vmap(f.vmap(lambda x: (x.sin() * 2, x.sum()))),
    "vmap vmap dims": lambda f: f.vmap(f.vmap(lambda x: x.sin(), in_dims=1, out_dims=0), in_dims=1,
                                       out_dims=1),
    "vmap grad": lambda f: f.vmap(f.grad(scalar)),
    "vmap hessian": lambda f: f.vmap(f.hessian(scalar)),
    "grad of vmap": lambda f: f.grad(lambda x: f.vmap(scalar)(x).pow(2).sum()),
    "jacrev of vmap": lambda f: f.jacrev(f.vmap(scalar)),
    "jacfwd of vmap": lambda f: f.jacfwd(f.vmap(scalar)),
    "vmap of jvp": lambda f: f.vmap(lambda x: f.jvp(vector, (x,), (x * 3,))),
    "vmap of vjp": lambda f: f.vmap(lambda x: f.vjp(vector, x)[1](x)),
    "jvp of vmap": lambda f: lambda x: f.jvp(f.vmap(vector), (x,), (x,)),
    "vmap vmap grad": lambda f: f.vmap(lambda x: f.vmap(f.grad(scalar))(x[None] * x[:, None])),
    "outer product": lambda f: lambda x: f.vmap(
        lambda a: f.vmap(lambda b: (a * b).sum() + b[0])(x))(x),
    "chunks": lambda f: f.vmap(vector, chunk_size=2),
}


@needs_torch
@pytest.mark.parametrize("name", MAPPED)
def test_mapped(name):
    for seed in (0, 1):
        (x,), (t,) = both(numbers(3, 4, seed=seed))
        if name.startswith("vmap vmap") and "grad" not in name:
            (x,), (t,) = both(numbers(3, 4, 2, seed=seed))
        same(MAPPED[name](func)(x), MAPPED[name](torch.func)(t))


@needs_torch
def test_arguments_auxiliary_values_and_nests():
    arrays = numbers(3), numbers(3, seed=1), numbers(2, 3, seed=2)
    (a, b, m), (ta, tb, tm) = both(*arrays)

    def loss(p, q, scale=1.0):
        y = (p["w"] @ q[0]) * scale + q[1]["k"].sum()
        return y.sin().sum(), {"y": y, "note": "text"}

    for f, p, q in ((func, {"w": m}, (a, {"k": b})),):
        g, aux = f.grad(loss, has_aux=True)(p, q, scale=2.0)
        want, more = torch.func.grad(lambda *a, **k: (loss(*a, **k)[0], loss(*a, **k)[1]["y"]),
                                     has_aux=True)({"w": tm}, (ta, {"k": tb}), scale=2.0)
        same(g, want)
        same(aux["y"], more)
        assert aux["note"] == "text"
    got = grad_and_value(lambda p, q: loss(p, q)[0], argnums=(0, 1))({"w": m}, (a, {"k": b}))
    want = torch.func.grad_and_value(lambda p, q: loss(p, q)[0], argnums=(0, 1))(
        {"w": tm}, (ta, {"k": tb}))
    same(got, want)
    assert isinstance(got[0], tuple) and set(got[0][0]) == {"w"} and got[0][1][1].keys() == {"k"}
    two = lambda x, y: {"p": x * y.sum(), "q": [x.sum() * y]}
    for name in ("jacrev", "jacfwd"):
        for argnums in (0, 1, (0, 1), (1,), *([-1] if name == "jacrev" else [])):
            same(getattr(func, name)(two, argnums)(a, b),
                 getattr(torch.func, name)(two, argnums)(ta, tb))
    same(hessian(lambda x, y: (x * x * y).sum(), (0, 1))(a, b),
         torch.func.hessian(lambda x, y: (x * x * y).sum(), (0, 1))(ta, tb))
    out, back, extra = vjp(lambda x: (x * 2, {"half": x / 2}), a, has_aux=True)
    same(extra["half"], ta / 2)
    theirs = torch.func.vjp(lambda x: (x * 2, {"half": x / 2}), ta, has_aux=True)[1](tb)
    assert type(back(b)) is type(theirs) is tuple      # of a single input, too
    same(back(b), theirs)
    out, slope, extra = jvp(lambda x: (x * 2, x / 2), (a,), (b,), has_aux=True)
    same((out, slope, extra), (ta * 2, tb * 2, ta / 2))
    for name in ("jacrev", "jacfwd"):
        same(getattr(func, name)(lambda x: (x * x, x.sum()), has_aux=True)(a),
             getattr(torch.func, name)(lambda x: (x * x, x.sum()), has_aux=True)(ta))
    same(jacrev(vector, chunk_size=2)(a), torch.func.jacrev(vector, chunk_size=2)(ta))


def test_products_with_random_vectors_by_differences():
    rng = np.random.default_rng(3)
    w = facula.tensor(rng.normal(size=(4, 3)))

    def f(x):
        return (x @ w).tanh().softmax(0) * x[:3].exp()

    x, v, u = (rng.normal(size=n) for n in (4, 4, 3))
    eps = 1e-6
    slope = (f(facula.tensor(x + eps * v)).numpy() - f(facula.tensor(x - eps * v)).numpy()) / (
        2 * eps)
    out, got = jvp(f, (facula.tensor(x),), (facula.tensor(v),))
    np.testing.assert_allclose(got.numpy(), slope, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(out.numpy(), f(facula.tensor(x)).numpy())
    _, push = linearize(f, facula.tensor(x))
    np.testing.assert_allclose(push(facula.tensor(v)).numpy(), got.numpy(), rtol=1e-12)
    _, pull = vjp(f, facula.tensor(x))
    np.testing.assert_allclose((pull(facula.tensor(u))[0] * facula.tensor(v)).sum().item(),
                               float(got.numpy() @ u), rtol=1e-9)


# ---------------------------------------------------------------- what the body may do

def test_in_place_operations_and_views_inside():
    def f(x):
        y = x * 2
        y += x                         # 3 x
        y[0] = x[1] * x[2]
        z = y.view(2, 2)
        z[1].mul_(x[:2])
        return y

    def plain(x):
        return facula.stack([x[1] * x[2], 3 * x[1], 3 * x[2] * x[0], 3 * x[3] * x[1]])

    x = facula.tensor(numbers(4))
    for transform in (jacrev, jacfwd, lambda g: vmap(g, in_dims=0)):
        arg = x if transform in (jacrev, jacfwd) else facula.tensor(numbers(5, 4))
        same(transform(f)(arg), transform(plain)(arg))
    same(grad(lambda x: f(x).sum())(x), grad(lambda x: plain(x).sum())(x))


def test_an_input_written_to_is_written_outside():
    x = facula.tensor(numbers(3, 2))
    before = x.numpy().copy()
    out = vmap(lambda a: a.mul_(2).sum(), in_dims=1)(x)
    np.testing.assert_allclose(x.numpy(), before * 2)
    np.testing.assert_allclose(out.numpy(), (before * 2).sum(0))


def test_a_tensor_outside_can_be_written_to_where_all_examples_agree():
    count = facula.zeros(2)

    def f(x):
        count.add_(1)
        return x * count

    np.testing.assert_allclose(vmap(f)(facula.ones(3, 2)).numpy(), 1)
    np.testing.assert_allclose(grad(lambda x: f(x).sum())(facula.ones(2)).numpy(), 2)
    np.testing.assert_allclose(jvp(f, (facula.ones(2),), (facula.ones(2),))[1].numpy(), 3)
    assert count.tolist() == [3, 3]
    with pytest.raises(facula.func.VmapError, match="inplace arithmetic"):
        vmap(lambda x: count.add_(x))(facula.ones(3, 2))
    with pytest.raises(facula.func.VmapError, match="inplace arithmetic"):
        vmap(grad(lambda x: (count.add_(x) * x).sum()))(facula.ones(3, 2))
    assert count.tolist() == [3, 3]


def test_batch_norm_keeps_its_statistics_in_grad_and_refuses_in_vmap():
    net = nn.BatchNorm1d(3)
    x = facula.tensor(numbers(5, 3, dtype=np.float32))
    twin = nn.BatchNorm1d(3)
    twin(x)
    grad(lambda x: net(x).sin().sum())(x)
    np.testing.assert_allclose(net.running_mean.numpy(), twin.running_mean.numpy(), rtol=1e-6)
    assert net.num_batches_tracked.item() == 1
    with pytest.raises(facula.func.VmapError, match="inplace"):
        vmap(net)(facula.tensor(numbers(2, 5, 3, dtype=np.float32)))
    vmap(net.eval())(facula.tensor(numbers(2, 5, 3, dtype=np.float32)))


def test_looking_at_values():
    def steps(x):
        n = 0
        while x.abs().sum() < 50:                  # as often as the values say
            x = x * 2
            n += 1
        return x.sum() * n

    x = facula.tensor(numbers(3))
    g = grad(steps)(x)
    n = int(g[0].item()).bit_length()
    assert g[0].item() > 8 and n
    out, slope = jvp(steps, (x,), (facula.ones(3, dtype=facula.float64),))
    np.testing.assert_allclose(slope.item(), g.sum().item())
    np.testing.assert_allclose(out.item(), steps(x).item())
    same(hessian(steps)(x), facula.zeros(3, 3, dtype=facula.float64))
    for look in (lambda a: a.item(), lambda a: bool(a > 1), lambda a: a.tolist(),
                 lambda a: a[a > 0], lambda a: np.asarray(a), lambda a: a.nonzero()):
        with pytest.raises(facula.func.VmapError, match="data-dependent control flow"):
            vmap(lambda a, look=look: look(a) and a)(x)
    with pytest.raises(facula.func.VmapError, match=r"test_derivatives_and_maps\.py:\d+\)"):
        vmap(grad(lambda a: a * a.item()))(x)
    with pytest.raises(facula.func.VmapError):
        grad(lambda b: vmap(lambda a: a * a.item())(b).sum())(x)
    # What all examples share can be looked at.
    other = facula.tensor([2.0, 3.0])
    out = vmap(lambda a: a * (other * 2).sum().item())(x)
    np.testing.assert_allclose(out.numpy(), x.numpy() * 10)


def test_gradients_flow_on_through_transforms():
    w = facula.tensor(numbers(3), requires_grad=True)
    x = facula.tensor(numbers(4, 3))
    g = vmap(grad(lambda a: (a * w).sin().sum()))(x)
    assert g.requires_grad
    g.pow(2).sum().backward()
    u = facula.tensor(w.detach().numpy().copy(), requires_grad=True)
    ((x * u).cos() * u).pow(2).sum().backward()
    same(w.grad, u.grad)
    assert not grad(lambda a: (a * a).sum())(x).requires_grad
    assert not grad(lambda a: (a * w.detach()).sum())(x).requires_grad
    with facula.no_grad():
        g = grad(lambda a: (a * w).sin().sum())(x[0])
        assert not g.requires_grad and g.abs().sum().item() > 0
    v = facula.tensor(numbers(3), requires_grad=True)
    _, slope = jvp(lambda a: (a * w).exp(), (v,), (facula.ones(3, dtype=facula.float64),))
    slope.sum().backward()
    want = (1 + v * w).mul((v * w).exp())
    same(v.grad, (w * w * (v * w).exp()))
    assert want.shape == v.shape


@needs_torch
def test_detach_and_no_grad_mean_what_they_mean_in_pytorch():
    (x,), (t,) = both(numbers(3))

    def cut(x, lib):
        with lib.no_grad():
            c = x ** 2
        return (x ** 2 - c + x * x.detach()).sum()

    for name in ("grad", "jacrev", "jacfwd"):
        same(getattr(func, name)(lambda a: cut(a, facula))(x),
             getattr(torch.func, name)(lambda a: cut(a, torch))(t))
    f = lambda a, lib: lib.func.jvp(lambda b: cut(b, lib), (a,), (a,))
    same(f(x, facula), f(t, torch))
    g = lambda lib: lib.func.grad(lambda a: lib.func.jvp(
        lambda b: cut(b * 2, lib), (a,), (a,))[1])
    same(g(facula)(x), g(torch)(t))

    def late(x):
        y = x * 1
        z = y.detach()
        y.mul_(3)                                     # z shares its memory, not its tangent
        return (z * x).sum()

    same(jacfwd(late)(x), torch.func.jacfwd(late)(t))


# ---------------------------------------------------------------- random numbers

def test_random_numbers_under_vmap():
    x = facula.ones(5, 3)
    with pytest.raises(facula.func.VmapError, match="randomness error mode"):
        vmap(lambda a: a + facula.rand(3))(x)
    facula.manual_seed(1)
    same_ = vmap(lambda a: a * facula.rand(3), randomness="same")(x)
    facula.manual_seed(1)
    one = facula.rand(3)
    after = facula.rand(1)
    for row in same_:
        np.testing.assert_array_equal(row.numpy(), one.numpy())
    facula.manual_seed(1)
    vmap(lambda a: a * facula.rand(3), randomness="same")(x)
    np.testing.assert_array_equal(facula.rand(1).numpy(), after.numpy())
    facula.manual_seed(1)
    other = vmap(lambda a: a * facula.rand(3), randomness="different")(x)
    facula.manual_seed(1)
    whole = facula.rand(5, 3)
    np.testing.assert_array_equal(other.numpy(), whole.numpy())
    following = facula.rand(2)
    facula.manual_seed(1)
    vmap(lambda a: a * facula.rand(3), randomness="different")(x)
    np.testing.assert_array_equal(facula.rand(2).numpy(), following.numpy())
    nested = vmap(vmap(lambda a: a * facula.randn(()), randomness="different"),
                  randomness="different")(x)
    assert len(np.unique(nested.numpy())) == 15
    half = vmap(vmap(lambda a: a * facula.randn(()), randomness="same"),
                randomness="different")(x)
    assert len(np.unique(half.numpy())) == 5
    dropped = vmap(lambda a: F.dropout(a, 0.5), randomness="different")(facula.ones(40, 20))
    assert len({tuple(r) for r in dropped.tolist()}) > 30
    with pytest.raises(facula.func.VmapError, match="vmap: this random function"):
        vmap(lambda a: a[facula.randperm(3)], randomness="different")(x)
    with pytest.raises(facula.func.VmapError, match="randomness error mode"):
        vmap(lambda a: a[facula.randperm(3)])(x)
    g = vmap(grad(lambda a: (a * facula.rand(3)).sum()), randomness="different")(x)
    assert len(np.unique(g.numpy())) == 15
    with pytest.raises(RuntimeError, match="Only allowed values for randomness"):
        vmap(lambda a: a, randomness="often")


# ---------------------------------------------------------------- modules

def convnet():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(27, 4))


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.LayerNorm(7), nn.GELU(),
                         nn.Linear(7, 4))


@pytest.mark.parametrize("make", [convnet, perceptron])
def test_gradients_of_single_examples(make):
    facula.manual_seed(2)
    net = make()
    x, y = facula.randn(6, 1, 8, 8), facula.randint(0, 4, (6,))
    params = {k: v.detach() for k, v in net.named_parameters()}

    def loss(params, x, y):
        return F.cross_entropy(functional_call(net, params, (x[None],)), y[None])

    got = vmap(grad(loss), in_dims=(None, 0, 0))(params, x, y)
    whole = 0
    for i in range(6):
        net.zero_grad()
        F.cross_entropy(net(x[i:i + 1]), y[i:i + 1]).backward()
        for name, p in net.named_parameters():
            np.testing.assert_allclose(got[name][i].numpy(), p.grad.numpy(), rtol=2e-4, atol=2e-6)
            whole += 1
    assert whole == 6 * len(params)
    fisher = vmap(lambda g: g.pow(2).sum())(got["1.weight" if make is perceptron else "4.weight"])
    assert fisher.shape == (6,)


def test_an_ensemble_is_a_batch():
    facula.manual_seed(3)
    models = [perceptron() for _ in range(3)]
    params, buffers = stack_module_state(models)
    assert all(p.requires_grad and p.is_leaf for p in params.values()) and buffers == {}
    x = facula.randn(2, 1, 8, 8)
    out = vmap(lambda p, b, x: functional_call(models[0], (p, b), x), in_dims=(0, 0, None))(
        params, buffers, x)
    for k, m in enumerate(models):
        np.testing.assert_allclose(out[k].detach().numpy(), m(x).detach().numpy(), rtol=1e-4,
                                   atol=1e-5)
    out.sum().backward()
    assert params["1.weight"].grad.shape == (3, 7, 64)
    with pytest.raises(RuntimeError, match="same class"):
        stack_module_state([perceptron(), nn.Linear(2, 2)])
    with pytest.raises(RuntimeError, match="at least one model"):
        stack_module_state([])
    with pytest.raises(RuntimeError, match="training/eval"):
        stack_module_state([perceptron(), perceptron().eval()])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.b = self.a
        self.register_buffer("seen", facula.zeros(()))

    def forward(self, x, scale=1):
        self.seen = self.seen + 1
        return self.b(self.a(x)) * scale


def test_functional_call():
    net = Tied()
    x = facula.randn(3, 2)
    w = facula.randn(2, 2)
    own = net.a.weight
    want = (x @ w.T + net.a.bias) @ w.T + net.a.bias
    got = functional_call(net, {"a.weight": w}, (x,))
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert net.a.weight is own and net.b.weight is own
    got = functional_call(net, {"a.weight": w}, x, {"scale": 2}, tie_weights=True)
    np.testing.assert_allclose(got.detach().numpy(), 2 * want.detach().numpy(), rtol=1e-5,
                               atol=1e-6)
    state = {"seen": facula.tensor(5.0)}
    before = net.seen.item()
    functional_call(net, [{"a.weight": w}, state], x)
    assert net.seen.item() == before
    merged = {"a.weight": w, "seen": facula.tensor(5.0)}
    functional_call(net, merged, x)
    assert merged["seen"].item() == 6 and net.seen.item() == before
    with pytest.raises(ValueError, match="tied"):
        functional_call(net, {"a.weight": w, "b.weight": w * 2}, x)
    with pytest.raises(ValueError, match="multiple dictionaries"):
        functional_call(net, ({"a.weight": w}, {"a.weight": w}), x)
    with pytest.raises(RuntimeError, match="Missing key"):
        functional_call(net, {"a.weight": w}, x, strict=True)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        functional_call(net, {"what": w}, x, strict=True)
    with pytest.raises(ValueError, match="to be a dict"):
        functional_call(net, 3, x)
    with pytest.raises(RuntimeError):
        functional_call(net, {"a.weight": facula.ones(3, 3)}, x)
    assert net.a.weight is own


# ---------------------------------------------------------------- errors

def test_errors_name_what_is_wrong():
    x = facula.ones(3, 2)
    with pytest.raises(RuntimeError, match="scalar tensor"):
        grad(lambda x: x)(x)
    with pytest.raises(RuntimeError, match="return a Tensor"):
        grad(lambda x: 3)(x)
    with pytest.raises(RuntimeError, match="Got argnum=2"):
        grad(lambda x: x.sum(), argnums=2)(x)
    with pytest.raises(RuntimeError, match="unique"):
        grad(lambda x, y: x.sum(), argnums=(0, 0))(x, x)
    with pytest.raises(RuntimeError, match="floating point"):
        grad(lambda x: x.sum())(facula.ones(2, dtype=facula.int64))
    with pytest.raises(RuntimeError, match="same shape"):
        jvp(lambda x: x, (x,), (facula.ones(2),))
    with pytest.raises(RuntimeError, match="to be a tuple"):
        jvp(lambda x: x, x, (x,))
    with pytest.raises(RuntimeError, match="independent"):
        jvp(lambda x: facula.ones(2), (x,), (x,), strict=True)
    assert jvp(lambda x: facula.ones(2), (x,), (x,))[1].tolist() == [0, 0]
    with pytest.raises(RuntimeError, match="structure of"):
        vjp(lambda x: (x, x), x)[1](x)
    with pytest.raises(RuntimeError, match="returns only tensors"):
        vjp(lambda x: 2, x)
    with pytest.raises(NotImplementedError, match="forward AD"):
        jvp(facula.special.bessel_j0, (x,), (x,))
    with pytest.raises(ValueError, match="same size in the mapped"):
        vmap(lambda a, b: a)(x, facula.ones(2, 2))
    with pytest.raises(ValueError, match="dimensionality 2"):
        vmap(lambda a: a, in_dims=2)(x)
    with pytest.raises(ValueError, match="non-Tensor"):
        vmap(lambda a: a)(2.0)
    with pytest.raises(ValueError, match="at least one"):
        vmap(lambda a: a, in_dims=None if False else (None,))(x)
    with pytest.raises(ValueError, match="in_dims"):
        vmap(lambda a: a, in_dims="0")(x)
    with pytest.raises(ValueError, match="structure"):
        vmap(lambda a: a, in_dims=(0, 0))(x)
    with pytest.raises(ValueError, match="only return Tensors"):
        vmap(lambda a: 1)(x)
    with pytest.raises(ValueError, match="out_dim"):
        vmap(lambda a: a, out_dims=None)(x)
    with pytest.raises(ValueError, match="chunk_size"):
        vmap(lambda a: a, chunk_size=0)
    kept = []
    vmap(lambda a: kept.append(a * 2) or a)(x)
    with pytest.raises(facula.func.TransformError, match="return it from the function"):
        kept[0].sum().item()
    grad(lambda a: kept.append(a * 2) or a.sum())(x)
    np.testing.assert_allclose(kept[1].detach().numpy(), 2)


def test_what_a_function_returns_is_never_the_input_itself():
    x = facula.ones(3, 2)
    for out in (vmap(lambda a: a)(x), jvp(lambda a: a, (x,), (x,))[0], vjp(lambda a: a, x)[0]):
        out.add_(1)
        assert x.sum().item() == 6
    out = vmap(lambda a, b: (a, b), in_dims=(0, None), out_dims=(0, None))(x, x)
    out[1].add_(1)
    assert x.sum().item() == 6
    assert vmap(lambda a: facula.ones(2))(x).shape == (3, 2)


@pytest.mark.parametrize("shape", [(0, 2), (1, 0), (1, 1)])
def test_odd_batches(shape):
    x = facula.ones(*shape)
    assert vmap(lambda a: (a * 2).sum())(x).shape == shape[:1]
    assert vmap(grad(lambda a: (a * 2).sum()))(x).shape == shape
    assert jacrev(lambda a: a.sum(1))(x).shape == (shape[0], *shape)
    assert jacfwd(lambda a: a.sum(1))(x).shape == (shape[0], *shape)


def test_memory_that_is_not_contiguous():
    x = facula.tensor(numbers(4, 3)).t()
    y = facula.tensor(np.ascontiguousarray(x.numpy()))
    same(vmap(grad(scalar))(x), vmap(grad(scalar))(y))
    same(vmap(scalar, in_dims=1)(x[:2]), vmap(scalar, in_dims=1)(y[:2]))
    array = numbers(3, 4).T
    same(jacrev(lambda a: a.exp().sum(0))(facula.from_numpy(array)),
         jacrev(lambda a: a.exp().sum(0))(facula.tensor(array.copy())))
