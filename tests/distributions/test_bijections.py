"""Transforms: inverses, Jacobians against autograd's, shapes and constraints."""

import math

import numpy as np
import pytest

import facula
import facula.distributions as D
from facula.distributions import biject_to, constraints, transform_to
from facula.distributions import transforms as T
from tests.distributions.families import close, tensor


def draws(constraint, shape=(4,), seed=0):
    """Values that obey a constraint of the tests."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 0.7
    if constraint is constraints.positive:
        x = np.exp(x)
    return tensor(x.tolist())


ELEMENTWISE = [T.ExpTransform(), T.PowerTransform(2.0), T.PowerTransform(tensor(-1.5)),
               T.SigmoidTransform(), T.TanhTransform(), T.SoftplusTransform(),
               T.AffineTransform(1.0, -2.0), T.AffineTransform(tensor([1.0, 2.0, 0.0, 1.0]), 0.5),
               T.ComposeTransform([T.AffineTransform(0.5, 2.0), T.TanhTransform()]),
               T.ExpTransform().inv, T.identity_transform,
               T.CumulativeDistributionTransform(D.Normal(tensor(0.3), tensor(1.5)))]


@pytest.mark.parametrize("t", ELEMENTWISE, ids=repr)
def test_elementwise(t):
    positive = getattr(t.domain, "lower_bound", None) == 0
    x = draws(constraints.positive if positive else constraints.real).requires_grad_(True)
    y = t(x)
    assert t.codomain.check(y).all() and t.bijective
    close(t.inv(y), x, 1e-8, 1e-8)
    slope, = facula.autograd.grad(y.sum(), x)
    close(t.log_abs_det_jacobian(x, y), slope.abs().log(), 1e-7, 1e-7)
    close(t.inv.log_abs_det_jacobian(y, x), -slope.abs().log(), 1e-7, 1e-7)
    assert t.forward_shape((4,)) == t.inverse_shape((4,)) == (4,)
    sign = t.sign
    assert (np.sign(slope.numpy()) == (sign.numpy() if hasattr(sign, "numpy") else sign)).all()


def flat_jacobian(fn, x):
    """[outputs, inputs] of a function of one event."""
    return facula.autograd.functional.jacobian(fn, x)


def test_stick_breaking_and_its_jacobian():
    t = T.StickBreakingTransform()
    x = draws(None, (5, 3))
    y = t(x)
    assert y.shape == (5, 4) == t.forward_shape((5, 3)) and constraints.simplex.check(y).all()
    assert t.inverse_shape((5, 4)) == (5, 3)
    close(t.inv(y), x, 1e-8, 1e-8)
    close(t(facula.zeros(3, dtype=facula.float64)), np.full(4, 0.25), 1e-12)
    for k in range(5):
        matrix = flat_jacobian(lambda a: t(a)[:-1], x[k])
        want = facula.linalg.slogdet(matrix)[1]
        close(t.log_abs_det_jacobian(x, y)[k], want, 1e-7, 1e-7)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_correlation_factors_and_their_jacobian(n):
    t = T.CorrCholeskyTransform()
    count = n * (n - 1) // 2
    x = draws(None, (4, count))
    y = t(x)
    assert y.shape == (4, n, n) == t.forward_shape((4, count))
    assert t.inverse_shape((4, n, n)) == (4, count)
    assert constraints.corr_cholesky.check(y).all()
    close(t.inv(y), x, 1e-7, 1e-7)
    rows, columns = facula.tril_indices(n, n, -1)
    for k in range(4):
        matrix = flat_jacobian(lambda a: t(a)[rows, columns], x[k])
        close(t.log_abs_det_jacobian(x, y)[k], facula.linalg.slogdet(matrix)[1], 1e-7, 1e-7)
    with pytest.raises(ValueError, match="lower-diagonal"):
        t.forward_shape((4,))


def test_matrices_and_vectors():
    x = draws(None, (2, 3, 3))
    lower = T.LowerCholeskyTransform()
    assert constraints.lower_cholesky.check(lower(x)).all()
    close(lower.inv(lower(x)), x.tril(), 1e-9)
    whole = T.PositiveDefiniteTransform()
    assert constraints.positive_definite.check(whole(x)).all()
    close(whole.inv(whole(x)), x.tril(), 1e-7, 1e-7)
    soft = T.SoftmaxTransform()
    assert constraints.simplex.check(soft(x)).all() and not soft.bijective
    close(soft(soft.inv(soft(x))), soft(x), 1e-9)
    close(T.AbsTransform()(x), x.abs())


def test_reshaped_and_independent_and_composed():
    t = T.ReshapeTransform((2, 3), (6,))
    x = draws(None, (4, 2, 3))
    assert t(x).shape == (4, 6) and t.inv(t(x)).shape == x.shape
    assert t.log_abs_det_jacobian(x, t(x)).shape == (4,)
    assert t.domain.event_dim == 2 and t.codomain.event_dim == 1
    both = T.ComposeTransform([T.ExpTransform(), t])
    assert both.domain.event_dim == 2 and both.codomain.event_dim == 1
    close(both.log_abs_det_jacobian(x, both(x)), x.sum((-1, -2)), 1e-9)
    one = T.IndependentTransform(T.ExpTransform(), 1)
    close(one.log_abs_det_jacobian(x, one(x)), x.sum(-1), 1e-9)
    close(both.inv(both(x)), x, 1e-9)
    with pytest.raises(ValueError, match="different numbers"):
        T.ReshapeTransform((2, 3), (5,))
    with pytest.raises(ValueError, match="Shape mismatch"):
        t.forward_shape((4, 3, 2))


def test_parts_and_slices():
    t = T.CatTransform([T.ExpTransform(), T.TanhTransform()], dim=-1, lengths=[2, 3])
    x = draws(None, (4, 5))
    y = t(x)
    close(y[:, :2], x[:, :2].exp())
    close(y[:, 2:], x[:, 2:].tanh())
    close(t.inv(y), x, 1e-8)
    want = facula.cat([x[:, :2], T.TanhTransform().log_abs_det_jacobian(x[:, 2:], None)], -1)
    close(t.log_abs_det_jacobian(x, y), want, 1e-9)
    s = T.StackTransform([T.ExpTransform(), T.TanhTransform()], dim=1)
    x = draws(None, (3, 2))
    close(s(x), facula.stack([x[:, 0].exp(), x[:, 1].tanh()], 1))
    close(s.inv(s(x)), x, 1e-8)
    assert s.codomain.check(s(x)).all() and t.codomain.check(y).all()
    with pytest.raises(ValueError, match="5 long"):
        t(draws(None, (4, 4)))


def test_a_cache_keeps_the_last_pair():
    t = T.TanhTransform(cache_size=1)
    x = tensor([30.0, -40.0])
    assert t.inv(t(x)) is x
    assert T.TanhTransform().inv(t(x)).isinf().all()
    assert t.with_cache(0)._cache_size == 0
    assert T.ComposeTransform([T.TanhTransform()]).with_cache(1).parts[0]._cache_size == 1
    with pytest.raises(ValueError, match="cache_size"):
        T.ExpTransform(cache_size=2)


def test_equal_transforms():
    assert T.ExpTransform() == T.ExpTransform() != T.TanhTransform()
    assert T.AffineTransform(1, 2) == T.AffineTransform(tensor(1.0), tensor(2.0))
    assert T.AffineTransform(1, 2) != T.AffineTransform(1, 3)
    assert T.ExpTransform().inv == T.ExpTransform().inv
    assert T.ExpTransform().inv.inv == T.ExpTransform()


CONSTRAINTS = [constraints.real, constraints.positive, constraints.nonnegative,
               constraints.unit_interval, constraints.greater_than(2.0),
               constraints.less_than(-1.0), constraints.interval(-3.0, 5.0),
               constraints.half_open_interval(1.0, 2.0), constraints.real_vector,
               constraints.simplex, constraints.lower_cholesky, constraints.positive_definite,
               constraints.independent(constraints.positive, 1)]


@pytest.mark.parametrize("c", CONSTRAINTS, ids=repr)
def test_registry(c):
    x = draws(None, (2, 3, 3))
    for registry in (biject_to, transform_to):
        t = registry(c)
        y = t(x)
        assert c.check(y).all()
        close(t(t.inv(y)), y, 1e-7, 1e-7)
    with pytest.raises(NotImplementedError, match="Cannot transform"):
        biject_to(constraints.boolean)
    with pytest.raises(TypeError, match="Constraint subclass"):
        biject_to.register(3, None)(4)


def test_correlations_from_the_registry():
    assert constraints.corr_cholesky.check(biject_to(constraints.corr_cholesky)(
        draws(None, (2, 3)))).all()
    parts = constraints.cat([constraints.positive, constraints.unit_interval], -1, [1, 2])
    assert parts.check(transform_to(parts)(draws(None, (4, 3)))).all()


CHECKS = [
    (constraints.boolean, [0.0, 1.0, 2.0, 0.5], [True, True, False, False]),
    (constraints.nonnegative_integer, [0.0, 3.0, -1.0, 0.5], [True, True, False, False]),
    (constraints.positive_integer, [0.0, 3.0, 1.5], [False, True, False]),
    (constraints.positive, [0.0, 1.0, math.nan, math.inf], [False, True, False, True]),
    (constraints.nonnegative, [0.0, -0.0, -1e-9], [True, True, False]),
    (constraints.unit_interval, [0.0, 1.0, 1.1], [True, True, False]),
    (constraints.half_open_interval(0.0, 1.0), [0.0, 1.0], [True, False]),
    (constraints.integer_interval(0, 2), [0.0, 2.0, 3.0, 0.5], [True, True, False, False]),
    (constraints.real, [1.0, math.inf, math.nan], [True, True, False]),
    (constraints.one_hot, [[0.0, 1.0], [1.0, 1.0], [0.5, 0.5]], [True, False, False]),
    (constraints.simplex, [[0.4, 0.6], [0.4, 0.7], [-0.5, 1.5]], [True, False, False]),
    (constraints.multinomial(3), [[1.0, 2.0], [2.0, 2.0], [-1.0, 0.0]], [True, False, False]),
    (constraints.lower_triangular, [[[1.0, 0.0], [2.0, -1.0]], [[1.0, 1.0], [0.0, 1.0]]],
     [True, False]),
    (constraints.lower_cholesky, [[[1.0, 0.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]]],
     [True, False]),
    (constraints.corr_cholesky, [[[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.0], [0.6, 0.7]]],
     [True, False]),
    (constraints.symmetric, [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 2.0], [0.0, 1.0]]], [True, False]),
    (constraints.positive_definite, [[[2.0, 1.0], [1.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]]],
     [True, False]),
    (constraints.positive_semidefinite, [[[2.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]]],
     [True, False]),
]


@pytest.mark.parametrize("c,values,want", CHECKS, ids=[repr(c[0]) for c in CHECKS])
def test_constraints(c, values, want):
    assert c.check(tensor(values)).tolist() == want


def test_what_depends_on_parameters():
    assert constraints.is_dependent(D.Uniform.support)
    assert not constraints.is_dependent(D.Normal.support)
    assert D.Categorical.support.is_discrete and D.Categorical.support.event_dim == 0
    with pytest.raises(ValueError, match="dependent"):
        constraints.dependent.check(tensor(1.0))
    with pytest.raises(NotImplementedError, match="statically"):
        _ = constraints.dependent.event_dim


def test_against_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.distributions.transforms
    x = np.random.default_rng(3).normal(size=(4, 6))
    for name in ("ExpTransform", "SigmoidTransform", "TanhTransform", "SoftplusTransform",
                 "StickBreakingTransform", "CorrCholeskyTransform", "SoftmaxTransform"):
        a, b = getattr(T, name)(), getattr(theirs, name)()
        ours, other = tensor(x.tolist()), torch.tensor(x)
        close(a(ours), b(other), 1e-9, 1e-9)
        close(a.inv(a(ours)), b.inv(b(other)), 1e-6, 1e-6)
        if b.bijective:
            close(a.log_abs_det_jacobian(ours, a(ours)), b.log_abs_det_jacobian(other, b(other)),
                  1e-7, 1e-7)
        assert a.domain.event_dim == b.domain.event_dim
        assert a.codomain.event_dim == b.codomain.event_dim
