"""Custom functions (`autograd.Function`) under transforms."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula.autograd import Function, once_differentiable
from facula.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap


def numbers(*shape, seed=0):
    return facula.tensor(np.random.default_rng(seed).uniform(0.3, 1.7, shape))


class Scaled(Function):
    """x * y with a gradient three times too large, so that one sees whose it is."""

    @staticmethod
    def forward(ctx, x, y, note=None):
        out = x * y
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)
        ctx.factor = 3.0
        return out

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return ctx.factor * g * y, ctx.factor * g * x, None

    @staticmethod
    def jvp(ctx, dx, dy, _=None):
        x, y = ctx.saved_tensors
        return 3.0 * (dx * y + x * dy)


class Host(Function):
    """exp by NumPy, which the graph does not see."""

    @staticmethod
    def forward(x):
        return facula.tensor(np.exp(x.detach().numpy()))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


class Two(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.kept = [x.sin(), {"cos": x.cos()}]
        return x.sin(), x.detach() * 0 + 1

    @staticmethod
    def backward(ctx, g, h):
        return g * ctx.kept[1]["cos"] + h

    @staticmethod
    def jvp(ctx, t):
        return t * ctx.kept[1]["cos"], t


def close(got, want):
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_reverse():
    x, y = numbers(4), numbers(4, seed=1)
    f = lambda x, y: Scaled.apply(x, y, "text").sin().sum()
    close(grad(f)(x, y), 3 * y * (x * y).cos())
    close(grad(lambda x: Host.apply(x).sum())(x), x.exp())
    close(jacrev(lambda x: Host.apply(x))(x), facula.diag(x.exp()))
    _, back = vjp(lambda x, y: Scaled.apply(x, y), x, y)
    close(back(x)[1], 3 * x * x)
    close(grad(lambda x: (Two.apply(x)[0] + 2 * Two.apply(x)[1]).sum())(x), x.cos() + 2)


def test_second_derivatives_go_through_backward():
    x, y = numbers(4), numbers(4, seed=1)
    # backward is 3 g y: its own derivative by y is that of a product, 3 g.
    got = grad(lambda y: grad(lambda x: Scaled.apply(x, y).sum())(x).sum())(y)
    close(got, facula.full_like(y, 3.0))
    # The value passes the outer level with the custom gradient as well.
    def value(y):
        return vjp(lambda x: Scaled.apply(x, y), x)[0].sum()
    close(grad(value)(y), 3 * x)

    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    close(grad(lambda x: grad(lambda z: Once.apply(z).sum())(x).sum())(x),
          facula.zeros_like(x))


class Exp(Function):
    """Keeps what it returns."""

    @staticmethod
    def forward(ctx, x):
        out = x.exp()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, g):
        out, = ctx.saved_tensors
        return g * out


class ProductAndSine(Function):
    """Two outputs, both kept for the gradients of both."""

    @staticmethod
    def forward(ctx, x, y):
        product = x * y
        sine = product.sin()
        ctx.save_for_backward(x, y, product, sine)
        return product, sine

    @staticmethod
    def backward(ctx, g, h):
        x, y, product, sine = ctx.saved_tensors
        assert g is not None and h is not None and sine.shape == x.shape
        whole = g + h * product.cos()
        return whole * y, whole * x


def _twice(f, x):
    return grad(lambda y: grad(f)(y).pow(2).sum())(x)


def _thrice(f, x):
    return grad(lambda y: _twice(f, y).sum())(x)


def _outside(f, x):
    """Two more derivatives by `autograd.grad` of what the transform has left, and mapped."""
    x = (x * 1.0).detach().requires_grad_()
    first = vmap(grad(f))(x) if x.ndim == 2 else grad(f)(x)
    second, = facula.autograd.grad(first.pow(2).sum(), x, create_graph=True)
    third, = facula.autograd.grad(second.sum(), x)
    return facula.stack([second.detach(), third])


@pytest.mark.parametrize("custom,plain", [
    (lambda x: Exp.apply(x).sum(), lambda x: x.exp().sum()),
    (lambda x: facula.stack(ProductAndSine.apply(x, x * 2)).prod(0).sum(),
     lambda x: (2 * x * x * (2 * x * x).sin()).sum()),
    (lambda x: ProductAndSine.apply(x, x * 2)[1].sum(), lambda x: (2 * x * x).sin().sum()),
    (lambda x: (Exp.apply(x) * Exp.apply(x).detach()).sum(),
     lambda x: (x.exp() * x.exp().detach()).sum())], ids=["one", "two", "one of two", "detached"])
def test_a_function_that_keeps_its_outputs_has_derivatives_of_every_order(custom, plain):
    x, many = numbers(3), numbers(2, 3)
    for way in (_twice, _thrice, _outside, lambda f, x: jacrev(grad(f))(x)):
        close(way(custom, x), way(plain, x))
    for way in (_twice, lambda f, x: jacrev(grad(f))(x)):
        mapped, wanted = (vmap(lambda a, f=f, way=way: way(f, a))(many) for f in (custom, plain))
        close(mapped, wanted)
    close(_outside(custom, many), _outside(plain, many))
    close(grad(lambda m: vmap(custom)(m).pow(2).sum())(many),
          grad(lambda m: vmap(plain)(m).pow(2).sum())(many))


def test_gradients_reach_outside_through_a_custom_function():
    x, w = numbers(3), numbers(3, seed=2).requires_grad_()
    out = vmap(lambda a: Scaled.apply(a, w))(numbers(5, 3))
    out.sum().backward()
    close(w.grad, 3 * numbers(5, 3).sum(0))
    w.grad = None
    g, value = facula.func.grad_and_value(lambda a: Scaled.apply(a, w).sum())(x)
    value.backward()
    close(w.grad, 3 * x)
    g.sum().backward()
    close(w.grad, 3 * x + 3)


def test_mapped():
    x, y = numbers(5, 3), numbers(5, 3, seed=1)
    close(vmap(grad(lambda a, b: Scaled.apply(a, b).sin().sum()))(x, y), 3 * y * (x * y).cos())
    close(grad(lambda a: vmap(Scaled.apply)(a, y).sin().sum())(x), 3 * y * (x * y).cos())
    close(grad(lambda b: vmap(Scaled.apply, in_dims=(0, None))(x, b).sum())(y[0]), 3 * x.sum(0))
    close(jacrev(lambda a: vmap(Scaled.apply)(a, y).sum(1))(x).sum((0,)), 3 * y)
    close(grad(lambda a: vmap(vmap(Scaled.apply))(a, y).sum())(x), 3 * y)
    close(grad(lambda a: vmap(lambda b: sum(Two.apply(b)))(a).sum())(x), x.cos() + 1)
    with pytest.raises(facula.func.VmapError):
        vmap(Host.apply)(x)


def test_forward():
    x, y = numbers(4), numbers(4, seed=1)
    out, slope = jvp(lambda x: Scaled.apply(x, y), (x,), (facula.ones_like(x),))
    close(out, x * y)
    close(slope, 3 * y)
    close(jacfwd(lambda x: Scaled.apply(x, x))(x), facula.diag(6 * x))
    close(jvp(lambda x: Two.apply(x)[0], (x,), (x,))[1], x * x.cos())
    close(vmap(lambda a, b: jvp(lambda z: Scaled.apply(z, b), (a,), (a,))[1])(x, y), 3 * x * y)
    close(jvp(lambda a: vmap(Scaled.apply)(a, y), (x,), (y,))[1], 3 * y * y)
    close(hessian(lambda x: Scaled.apply(x, x).sum())(x), facula.diag(facula.full_like(x, 6.0)))
    close(grad(lambda x: jvp(lambda z: Scaled.apply(z, y), (x,), (x,))[1].sum())(x), 3 * y)
    with pytest.raises(NotImplementedError, match="jvp"):
        jvp(Host.apply, (x,), (x,))


def test_gradcheck_of_forward_derivatives():
    from facula.autograd import GradcheckError, gradcheck

    class Right(Scaled):
        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            return g * y, g * x

        @staticmethod
        def jvp(ctx, dx, dy):
            x, y = ctx.saved_tensors
            return dx * y + x * dy

    class Wrong(Right):
        @staticmethod
        def jvp(ctx, dx, dy):
            x, y = ctx.saved_tensors
            return dx * y - x * dy

    pair = numbers(3).requires_grad_(), numbers(3, seed=1).requires_grad_()
    options = {"check_forward_ad": True, "check_batched_forward_grad": True}
    assert gradcheck(Right.apply, pair, **options)
    assert gradcheck(Right.apply, pair, fast_mode=True, **options)
    assert gradcheck(lambda x: x.exp().cumsum(0), pair[0], check_backward_ad=False, **options)
    for fast in (False, True):
        with pytest.raises(GradcheckError, match="forward mode"):
            gradcheck(Wrong.apply, pair, fast_mode=fast, **options)
    assert gradcheck(Wrong.apply, pair)
    with pytest.raises(ValueError, match="needs check_forward_ad"):
        gradcheck(Right.apply, pair, check_batched_forward_grad=True)
    with pytest.raises(ValueError, match="nothing"):
        gradcheck(Right.apply, pair, check_backward_ad=False)


def test_constants_inside_operations_have_no_tangent():
    x, y = numbers(3), numbers(3, seed=1)
    close(jvp(facula.nextafter, (x, y), (x, y))[1], x)
    mantissa = lambda x: facula.frexp(x)[0]
    close(jvp(mantissa, (x,), (x,))[1], vjp(mantissa, x)[1](x)[0])


class Sorted(Function):
    """NumPy sorts along a dimension, which no graph sees, and says what a batch is."""

    @staticmethod
    def forward(x, dim):
        return facula.tensor(np.sort(x.detach().numpy(), dim)), facula.tensor(
            np.argsort(x.detach().numpy(), dim))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.dim = inputs[1]

    @staticmethod
    def backward(ctx, g, _):
        index = ctx.saved_tensors[0]
        return facula.zeros_like(g).scatter(ctx.dim, index, g), None

    @staticmethod
    def vmap(info, in_dims, x, dim):
        assert info.batch_size == 5 and info.randomness == "error"
        x = x.movedim(in_dims[0], 0)
        return Sorted.apply(x, dim + 1 if dim >= 0 else dim), 0


def test_a_function_that_says_how_it_is_mapped():
    x = numbers(5, 4)
    values, order = vmap(lambda a: Sorted.apply(a, 0))(x)
    close(values, x.sort(1)[0])
    assert order.tolist() == x.argsort(1).tolist()
    y = x.clone().requires_grad_()
    (vmap(lambda a: Sorted.apply(a * 2, 0)[0] * facula.arange(4.0))(y)).sum().backward()
    close(y.grad, 2 * x.argsort(1).argsort(1).double())
    close(grad(lambda a: (vmap(lambda b: Sorted.apply(b, 0)[0])(a) * facula.arange(4.0)).sum())(x),
          x.argsort(1).argsort(1).double())
    close(Sorted.apply(x, 1)[0], values)

    class Bad(Sorted):
        @staticmethod
        def vmap(info, in_dims, x, dim):
            return x.sum(0), 0

    with pytest.raises(facula.func.VmapError, match="batch in front"):
        vmap(lambda a: Bad.apply(a, 0))(x)
