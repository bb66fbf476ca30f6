"""Operations that a program defines by name."""

import pytest

import facula
from facula import library
from facula.ops.custom import NAMESPACES


@pytest.fixture
def names():
    before = dict(NAMESPACES)
    yield
    NAMESPACES.clear()
    NAMESPACES.update(before)


def test_an_operation_by_decorator(names):
    @library.custom_op("own::scaled", mutates_args=())
    def scaled(x: facula.Tensor, by: float = 2.0) -> facula.Tensor:
        """x * by"""
        return x * by

    @scaled.register_fake
    def _(x, by=2.0):
        return facula.empty_like(x)
    x = facula.arange(3.0, requires_grad=True)
    assert facula.equal(scaled(x), x * 2) and scaled.__doc__ == "x * by"
    assert facula.equal(facula.ops.own.scaled(x, by=3.0), x * 3)
    assert facula.equal(facula.ops.own.scaled.default(x, 3.0), x * 3)
    scaled(x, 4.0).sum().backward()
    assert x.grad.tolist() == [4, 4, 4]


def test_a_gradient_of_its_own(names):
    op = library.custom_op("own::square", lambda x, times: x * x * times, mutates_args=())

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    def backward(ctx, grad):
        x, = ctx.saved_tensors
        return grad * 100 * x, None
    op.register_autograd(backward, setup_context=setup_context)
    x = facula.arange(3.0, requires_grad=True)
    for call in (lambda: op(x, 1), lambda: op(x, times=1), lambda: facula.ops.own.square(x, 1)):
        x.grad = None
        y = call()
        assert y.tolist() == [0, 1, 4]
        y.sum().backward()
        assert x.grad.tolist() == [0, 100, 200]


def test_declared_and_then_given_a_function(names):
    lib = library.Library("own", "DEF")
    assert lib.define("twice(Tensor x) -> Tensor") == "twice"
    with pytest.raises(NotImplementedError, match="own::twice"):
        facula.ops.own.twice(facula.ones(1))
    lib.impl("twice", lambda x: x * 5, "CUDA")
    with pytest.raises(NotImplementedError, match="own::twice"):
        facula.ops.own.twice(facula.ones(1))
    lib.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    assert facula.ops.own.twice(facula.ones(1)).item() == 2
    library.define("own::thrice", "(Tensor x) -> Tensor")

    @library.impl("own::thrice", "cpu")
    def thrice(x):
        return x * 3
    assert facula.ops.own.thrice(facula.ones(1)).item() == 3


def test_what_is_refused(names):
    with pytest.raises(ValueError, match="mylibrary::myop"):
        library.custom_op("noname", lambda x: x)
    with pytest.raises(AttributeError, match="nosuch"):
        facula.ops.nosuch.op
    library.define("own::a", "() -> ()")
    with pytest.raises(AttributeError, match="own::b"):
        facula.ops.own.b
    with pytest.raises(NotImplementedError, match="GPU"):
        library.triton_op("own::t", lambda x: x)
    with pytest.raises(ValueError, match="kind"):
        library.Library("own", "WHAT")
