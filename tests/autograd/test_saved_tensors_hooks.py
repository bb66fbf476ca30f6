"""`saved_tensors_hooks`: what gradients read is kept as the hooks say."""

import importlib
import weakref

import numpy as np
import pytest

import facula
from facula import func, nn
from facula.autograd import Function
from facula.autograd.graph import disable_saved_tensors_hooks, save_on_cpu, saved_tensors_hooks


def arrays():
    """Hooks that keep nothing of a tensor but its numbers, and what they were called with."""
    packed, unpacked = [], []

    def pack(t):
        packed.append(t)
        return t.numpy().copy()

    def unpack(array):
        unpacked.append(array)
        return facula.tensor(array)

    return packed, unpacked, saved_tensors_hooks(pack, unpack)


def test_the_example_of_the_documentation():
    a = facula.ones(5, requires_grad=True)
    b = facula.ones(5, requires_grad=True) * 2
    packed, unpacked, hooks = arrays()
    with hooks:
        y = a * b
    assert [t.tolist() for t in packed] == [[1] * 5, [2] * 5] and not unpacked
    y.sum().backward()
    assert len(unpacked) == 2 and a.grad.tolist() == [2] * 5


def test_gradients_are_of_what_was_unpacked():
    a = facula.ones(3, requires_grad=True)
    with saved_tensors_hooks(lambda t: t * 0 + 3, lambda t: t):
        y = a * a
    y.sum().backward()
    assert a.grad.tolist() == [6, 6, 6]


@pytest.mark.parametrize("make", [
    lambda x: (x.exp() * x).sin(), lambda x: x @ x.T, lambda x: x.softmax(-1) ** 2,
    lambda x: nn.functional.layer_norm(x, (4,)) * x, lambda x: x.cumsum(0) * x[0],
    lambda x: nn.functional.gelu(x.reshape(4, 3)).T, lambda x: x.max(1).values * x.std(),
    lambda x: x[facula.tensor([0, 0, 2])] * 2 * x, lambda x: x.logsumexp(0).prod() + x])
def test_gradients_and_gradients_of_gradients(make):
    facula.manual_seed(0)
    x = facula.randn(3, 4, dtype=facula.float64, requires_grad=True)

    def derivatives(y):
        g, = facula.autograd.grad(y.square().sum(), x, create_graph=True)
        return g, facula.autograd.grad(g.square().sum(), x)[0]

    expected = derivatives(make(x))
    packed, unpacked, hooks = arrays()
    with hooks:
        y = make(x)
    found = derivatives(y)
    assert packed and unpacked
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_a_model_trains_as_without():
    def losses(hooks):
        facula.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                              nn.Linear(4 * 36, 3))
        optimizer = facula.optim.Adam(model.parameters(), lr=1e-2)
        x, y = facula.randn(5, 1, 8, 8), facula.randint(3, (5,))
        found = []
        for _ in range(5):
            optimizer.zero_grad()
            with hooks():
                loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    assert losses(lambda: arrays()[2]) == pytest.approx(losses(save_on_cpu), rel=1e-4)


def test_backward_inside_the_context():
    a = facula.full((3,), 2.0, requires_grad=True)
    for _ in range(4):                              # as the pass that was learned, too
        a.grad = None
        (a * a).sum().backward()
        packed, unpacked, hooks = arrays()
        with hooks:
            (a * a).sum().backward()
        assert len(packed) == len(unpacked) // 2 == 1 and a.grad.tolist() == [8, 8, 8]


def test_memory_is_what_was_packed():
    a = facula.ones(1000, requires_grad=True)
    kept = []

    def pack(t):
        kept.append(weakref.ref(t._memory()[0]))
        return t.to(facula.bfloat16)

    with saved_tensors_hooks(pack, lambda t: t.float()):
        y = (a * 2).exp().sum()
    assert kept and all(ref() is None for ref in kept)
    y.backward()
    assert a.grad[0].item() == pytest.approx(2 * np.exp(2), rel=1e-2)


def test_what_was_packed_may_be_overwritten():
    a = facula.ones(2, requires_grad=True)
    packed, unpacked, hooks = arrays()
    with hooks:
        w = a * 3
        y = w * w
    w.detach().zero_()
    y.sum().backward()
    assert a.grad.tolist() == [18, 18]


class Product(Function):
    @staticmethod
    def forward(ctx, x, y):
        out = x * y
        ctx.save_for_backward(x, y, None, out)
        return out

    @staticmethod
    def backward(ctx, g):
        x, y, nothing, out = ctx.saved_tensors
        assert nothing is None and out.shape == g.shape
        return g * y, g * x


def test_custom_functions():
    a = facula.full((2,), 2.0, requires_grad=True)
    packed, unpacked, hooks = arrays()
    with hooks:
        y = Product.apply(a, a * 3)
    assert len(packed) == 3
    g, = facula.autograd.grad(y.sum(), a, create_graph=True)
    assert len(unpacked) == 3 and g.tolist() == [12, 12]
    second, = facula.autograd.grad(g.sum(), a)
    assert second.tolist() == [6, 6]


def test_retained_graphs_unpack_each_time():
    a = facula.ones(2, requires_grad=True)
    packed, unpacked, hooks = arrays()
    with hooks:
        y = (a * a).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert len(packed) == 1 and len(unpacked) == 4 and a.grad.tolist() == [4, 4]
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_the_innermost_hooks_count():
    a = facula.ones(2, requires_grad=True)
    outer, _, one = arrays()
    inner, _, two = arrays()
    with one:
        y = a * a
        with two:
            z = y * y
        w = z * z
    assert (len(outer), len(inner)) == (2, 1)
    w.sum().backward()
    assert a.grad.tolist() == [8, 8]
    with pytest.raises(ValueError):
        with one:
            raise ValueError
    (a * a).sum().backward()
    assert len(outer) == 2


def test_without_gradients_nothing_is_packed():
    packed, _, hooks = arrays()
    with hooks:
        facula.ones(3).exp() * 2
        with facula.no_grad():
            facula.ones(3, requires_grad=True).exp()
    assert not packed


def test_what_is_refused():
    a = facula.ones(2, requires_grad=True)
    with saved_tensors_hooks(lambda t: t, lambda t: 1):
        y = (a * a).sum()
    with pytest.raises(TypeError, match="expected to be a Tensor but got result of type int"):
        y.backward()
    with saved_tensors_hooks(lambda t: t, lambda t: t[:1]):
        y = (a * a).sum()
    with pytest.raises(facula.errors.ShapeError, match=r"shape \[1\] for one of shape \[2\]"):
        y.backward()
    with pytest.raises(RuntimeError, match="modifying its input in place"):
        with saved_tensors_hooks(lambda t: t.add_(1), lambda t: t):
            y = (a.exp() * a).sum()
    assert (a * 1).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match=r"facula\.func"):
        func.grad(lambda x: _with_hooks(x))(a.detach())


def _with_hooks(x):
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        return (x * x).sum()


def test_disabled():
    _, _, hooks = arrays()
    with disable_saved_tensors_hooks("not here"):
        with pytest.raises(RuntimeError, match="not here"):
            hooks.__enter__()
    with hooks:
        with pytest.raises(RuntimeError, match="not now"):
            with disable_saved_tensors_hooks("not now"):
                pass
    with hooks:
        pass


def test_compiled_functions_run_as_they_are():
    packed, _, hooks = arrays()

    @facula.compile
    def loss(x):
        with hooks:
            return (x * x).sum()

    a = facula.ones(2, requires_grad=True)
    for _ in range(4):
        loss(a).backward()
    assert len(packed) == 4 and a.grad.tolist() == [8, 8]


def test_as_pytorch():
    torch = pytest.importorskip("torch")
    found = []
    for module in (torch, facula):
        hooks = importlib.import_module(f"{module.__name__}.autograd.graph").saved_tensors_hooks
        x = module.arange(6.0).reshape(2, 3).requires_grad_()
        sizes = []

        def pack(t, sizes=sizes):
            sizes.append(t.numel())
            return (t * 4).round() / 4

        with hooks(pack, lambda t: t):
            y = (x / 3).sigmoid() * (x + 0.1)
        y.sum().backward()
        assert set(sizes) == {6}
        found.append(x.grad.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
