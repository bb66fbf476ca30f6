"""Running results of associative functions, against sums, products and a loop."""

import numpy as np
import pytest

import facula
from facula._higher_order_ops import associative_scan
from facula._higher_order_ops.associative_scan import associative_scan as same
from facula.autograd import gradcheck


def linear(left, right):
    """x -> a x + b, one after the other."""
    return left[0] * right[0], right[0] * left[1] + right[1]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7, 8, 13])
@pytest.mark.parametrize("reverse", [False, True])
def test_sums(n, reverse):
    x = np.random.default_rng(0).normal(size=(3, n, 2))
    got = associative_scan(lambda a, b: a + b, facula.tensor(x), 1, reverse=reverse)
    want = x[:, ::-1].cumsum(1)[:, ::-1] if reverse else x.cumsum(1)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
@pytest.mark.parametrize("dim", [0, -1])
def test_linear_recurrence(n, dim):
    """An order of operands that matters: h[t] = a[t] h[t - 1] + b[t]."""
    r = np.random.default_rng(1)
    a, b = r.normal(size=(2, n, 3))
    want, h = [], np.zeros(3)
    for p, q in zip(a, b):
        h = p * h + q
        want.append(h)
    turn = (lambda x: x) if dim == 0 else (lambda x: np.ascontiguousarray(x.T))
    _, got = associative_scan(linear, (facula.tensor(turn(a)), facula.tensor(turn(b))), dim,
                              combine_mode="generic")
    np.testing.assert_allclose(got.numpy(), turn(np.array(want)), rtol=1e-10, atol=1e-12)


def test_order_of_matrices():
    """A product that does not commute, and operands handed over in order."""
    m = np.random.default_rng(2).normal(size=(6, 2, 2))
    got = associative_scan(lambda a, b: a @ b, facula.tensor(m), 0, combine_mode="generic")
    want = m[0]
    for k in range(1, 6):
        want = want @ m[k]
    np.testing.assert_allclose(got[-1].numpy(), want, rtol=1e-10)


def test_gradients():
    r = np.random.default_rng(3)
    a, b = (facula.tensor(r.normal(size=(2, 5)), requires_grad=True) for _ in range(2))
    assert gradcheck(lambda a, b: associative_scan(linear, (a, b), 1)[1], (a, b))


def test_trees_keep_their_structure():
    x = facula.arange(4.0)
    out = associative_scan(lambda a, b: {"s": a["s"] + b["s"]}, {"s": x}, 0)
    assert out["s"].tolist() == [0.0, 1.0, 3.0, 6.0]


def test_what_is_refused():
    x = facula.ones(3)
    with pytest.raises(TypeError, match="callable"):
        associative_scan(None, x, 0)
    with pytest.raises(ValueError, match="combine_mode"):
        associative_scan(linear, x, 0, combine_mode="fast")
    with pytest.raises(ValueError, match="no tensors"):
        associative_scan(linear, (), 0)
    with pytest.raises(TypeError, match="must be tensors"):
        associative_scan(linear, (x, 3), 0)
    with pytest.raises(facula.errors.ShapeError, match="differ"):
        associative_scan(linear, (x, facula.ones(4)), 0)
    with pytest.raises(facula.errors.ShapeError, match="keep shapes"):
        associative_scan(lambda a, b: (a + b).sum(), x, 0)
    with pytest.raises(ValueError, match="structure"):
        associative_scan(lambda a, b: (a, b), x, 0)
    with pytest.raises(IndexError):
        associative_scan(lambda a, b: a + b, x, 1)


def test_where_pytorch_keeps_it():
    assert same is associative_scan
    assert facula._higher_order_ops.associative_scan is associative_scan
