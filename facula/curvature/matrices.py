"""The matrices: Hessian, Gauss-Newton, Fisher and empirical Fisher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facula.autograd.backward import grad
from facula.curvature.linear import (
    Layout,
    gauss_newton_rule,
    hessian_rule,
    linearise,
    outer_rule,
    score_rule,
)
from facula.curvature.operators import CurvatureOperator, a_loss, parameters_of
from facula.curvature.retained import RetainedGaussNewton, RetainedHessian, RetainedOuter
from facula.curvature.trace import NotTraceable, traced, untraced
from facula.errors import ClosureError, ShapeError
from facula.graph import record as _record
from facula.tensor import Tensor, scalar

__all__ = ["HessianOperator", "GaussNewtonOperator", "FisherOperator", "EmpiricalFisherOperator",
           "empirical_fisher_diagonal"]


def tensors(value: Any, what: str) -> list[Tensor]:
    """The tensors of one or several; raises ClosureError for anything else."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)) and value and all(isinstance(t, Tensor) for t in value):
        return list(value)
    raise ClosureError(f"the closure has to return its {what} as a Tensor or a tuple of Tensors, "
                       f"not {type(value).__name__}")


def _leading(t: Tensor, axis: int, what: str) -> int:
    if not -t.ndim <= axis < t.ndim:
        raise ShapeError(f"{what} of shape {list(t.shape)} has no dimension {axis} for the "
                         "samples")
    return int(t.shape[axis])


class HessianOperator(CurvatureOperator):
    """The Hessian of a loss: products H v by forward over reverse (Pearlmutter 1994).

    fn       called without arguments; returns the loss, one real number
    params   the parameters: tensors, or a module

    A product costs about two gradients.
    """

    def _derive(self) -> tuple[Any, str]:
        def call() -> Tensor:
            out = self.fn()
            return a_loss(out[0] if isinstance(out, (tuple, list)) and out else out)

        trace, _, why = traced(call, self.params)
        if trace is not None:
            try:
                return linearise(trace, self.params, "hessian", hessian_rule), ""
            except NotTraceable as reason:
                why = str(reason)
        return RetainedHessian(self.params, untraced(call, self.params)), why


class GaussNewtonOperator(CurvatureOperator):
    """The generalised Gauss-Newton matrix J' H J (Schraudolph 2002).

    fn         called without arguments; returns (loss, outputs) or (loss, outputs, hidden).
               `outputs` are the tensors, one or a tuple of them, from which the loss was
               computed; J is their derivative by the parameters and H the Hessian of the loss
               in terms of them
    params     the parameters: tensors, or a module
    hidden     the weight mu of structural damping (Martens and Sutskever 2012): mu J'J / N of
               the closure's `hidden` tensors is added, N being the number of samples
    batch_dim  the dimension of the hidden tensors along which samples lie
    gradient   whether `loss` and `gradient` are computed besides; without, None

    Where the loss depends on parameters past the outputs, as a weight penalty does, second
    derivatives in these count in full.  Positive semidefinite if the loss is convex in outputs
    and parameters together.  A product costs about 1.3 gradients.
    """

    def __init__(self, fn: Callable[[], Any], params: Any, hidden: float = 0.0,
                 batch_dim: int = 0, gradient: bool = True):
        self.hidden = float(hidden)
        self.batch_dim = batch_dim
        self._with_gradient = bool(gradient)
        super().__init__(fn, params)

    def _numbers(self) -> tuple[Tensor, ...]:
        return (scalar(self.hidden, self.dtype),)

    def _parts(self) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        out = self.fn()
        if not isinstance(out, (tuple, list)) or len(out) not in (2, 3):
            raise ClosureError("the closure of a Gauss-Newton matrix has to return (loss, "
                               "outputs) or (loss, outputs, hidden), outputs being what the loss "
                               "was computed from")
        states = tensors(out[2], "hidden states") if len(out) == 3 else []
        if self.hidden and not states:
            raise ClosureError("structural damping acts on hidden states, and the closure "
                               "returned none: let it return (loss, outputs, hidden)")
        for t in states:
            _leading(t, self.batch_dim, "a hidden state")
        return a_loss(out[0]), tensors(out[1], "outputs"), states

    def _derive(self) -> tuple[Any, str]:
        trace, (_, outputs, states), why = traced(self._parts, self.params)
        counts = len(outputs), len(states), self.batch_dim, self._with_gradient
        if trace is not None:
            try:
                return linearise(trace, self.params, ("gauss-newton", counts),
                                 gauss_newton_rule(*counts), 1), ""
            except NotTraceable as reason:
                why = str(reason)
        loss, outputs, states = untraced(self._parts, self.params)
        kept = RetainedGaussNewton(self.params, loss, outputs, states, self.batch_dim)
        if not self._with_gradient:
            kept.extras = []
        return kept, why


def _categorical(z: Any, axis: int) -> tuple[Any, Callable[[], Any]]:
    import facula
    p = z.detach().softmax(axis)

    def draw() -> Any:
        noise = -(-facula.rand_like(p).clamp(1e-20, 1.0).log()).clamp(1e-20).log()
        best = (z.detach() + noise).argmax(axis, keepdim=True)
        return facula.zeros_like(p).scatter(axis, best, 1.0) - p
    return z.logsumexp(axis), draw


def _bernoulli(z: Any, axis: int) -> tuple[Any, Callable[[], Any]]:
    import facula
    from facula.nn.functional import softplus
    p = z.detach().sigmoid()
    return softplus(z), lambda: (facula.rand_like(p) < p).to(p.dtype) - p


def _gaussian(z: Any, axis: int) -> tuple[Any, Callable[[], Any]]:
    import facula
    return z * z * 0.5, lambda: facula.randn_like(z.detach())


def _poisson(z: Any, axis: int) -> tuple[Any, Callable[[], Any]]:
    import facula
    rate = z.detach().exp()
    return z.exp(), lambda: facula.poisson(rate) - rate


_FAMILIES = {"categorical": _categorical, "bernoulli": _bernoulli, "gaussian": _gaussian,
             "poisson": _poisson}


class FisherOperator(CurvatureOperator):
    """The Fisher information of a model that predicts a distribution.

    fn          called without arguments; returns the outputs z, one tensor: what the
                distribution's natural parameters are
    params      the parameters: tensors, or a module
    likelihood  "categorical": z are logits along `class_dim`, as for cross_entropy;
                "bernoulli": logits, as for binary_cross_entropy_with_logits;
                "gaussian": means, of variance one, as for half the squared error;
                "poisson": logarithms of rates, as for poisson_nll_loss
    samples     0: exact, the Gauss-Newton matrix of the log-partition function A(z), because the
                distributions are exponential families;
                k > 0: Monte-Carlo, from k draws for every sample, made when the operator is
                (Martens 2020, section 5): rank at most k times the number of samples
    reduction   "mean" over the samples, or their "sum"; all that is within a sample is summed
    batch_dim   the dimension of z along which samples lie
    class_dim   the dimension of classes; 1, or 0 of a one-dimensional z, unless given
    """

    def __init__(self, fn: Callable[[], Any], params: Any, likelihood: str = "categorical",
                 samples: int = 0, reduction: str = "mean", batch_dim: int = 0,
                 class_dim: int | None = None):
        if likelihood not in _FAMILIES:
            raise ValueError(f"likelihood has to be one of {sorted(_FAMILIES)}, not "
                             f"{likelihood!r}")
        if samples < 0:
            raise ValueError(f"samples has to be 0 (exact) or more, not {samples}")
        _reduction(reduction)
        self.likelihood, self.samples, self.reduction = likelihood, samples, reduction
        self.batch_dim, self.class_dim = batch_dim, class_dim
        super().__init__(fn, params)

    def _scale(self, rows: int) -> float:
        return 1.0 / max(rows, 1) if self.reduction == "mean" else 1.0

    def _outputs(self) -> tuple[Tensor, int, int]:
        z = self.fn()
        if not isinstance(z, Tensor):
            raise ClosureError("the closure of a Fisher matrix has to return the outputs, one "
                               f"Tensor, not {type(z).__name__}")
        axis = self.class_dim if self.class_dim is not None else min(1, z.ndim - 1)
        return z, axis, _leading(z, self.batch_dim, "an output")

    def _surrogate(self) -> tuple[Tensor, Tensor]:
        z, axis, rows = self._outputs()
        partition, _ = _FAMILIES[self.likelihood](z, axis)
        return partition.sum() * self._scale(rows), z

    def _scores(self) -> list[Tensor]:
        z, axis, _ = self._outputs()
        _, draw = _FAMILIES[self.likelihood](z, axis)
        return [z, *[draw() for _ in range(self.samples)]]

    def _derive(self) -> tuple[Any, str]:
        if not self.samples:
            exact = GaussNewtonOperator(self._surrogate, self.params)
            exact._linear.extras = []               # the loss was made up
            return exact._linear, exact.why
        return _outer(self, self._scores, lambda: 1, self.samples)

    def _numbers(self) -> tuple[Tensor, ...]:
        return () if self.samples else (scalar(0.0, self.dtype),)


def _reduction(name: str) -> None:
    if name not in ("mean", "sum"):
        raise ValueError(f"reduction has to be 'mean' or 'sum', not {name!r}")


def _outer(op: Any, call: Callable[[], list[Tensor]], count: Callable[[], int], draws: int
           ) -> tuple[Any, str]:
    """J' s s' J, from a call that returns outputs and then, draw for draw, their scores.

    How many outputs there are, `count` says once the call has been made.
    """
    trace, found, why = traced(call, op.params)
    n, axis = count(), op.batch_dim
    scale = op._scale(found[0].shape[axis]) / draws
    if trace is not None:
        try:
            return linearise(trace, op.params, ("outer", n, draws, axis, scale),
                             outer_rule(n, draws, axis, scale)), ""
        except NotTraceable as reason:
            why = str(reason)
    found = untraced(call, op.params)
    scores = [found[n * (1 + d):n * (2 + d)] for d in range(draws)]
    return RetainedOuter(op.params, found[:n], scores, axis, scale), why


class EmpiricalFisherOperator(CurvatureOperator):
    """The second moment of the samples' gradients: the mean (or sum) over n of g_n g_n'.

    fn         called without arguments; returns (loss, outputs), the loss being the mean or sum
               over samples of each one's loss, computed from the outputs
    params     the parameters: tensors, or a module
    reduction  which of the two the loss is, "mean" or "sum"; the matrix is reduced likewise
    batch_dim  the dimension of every output along which samples lie

    The outputs of a sample must depend on that sample alone (batch norm in training mode mixes
    them: the matrix is then that of J' s s' J with s the samples' gradients by the outputs).
    """

    def __init__(self, fn: Callable[[], Any], params: Any, reduction: str = "mean",
                 batch_dim: int = 0):
        _reduction(reduction)
        self.reduction, self.batch_dim = reduction, batch_dim
        self._count = 1
        super().__init__(fn, params)

    def _scale(self, rows: int) -> float:
        # The scores are those of the reduced loss: each is 1/N of its sample's own.
        return float(rows) if self.reduction == "mean" else 1.0

    def _scores(self) -> list[Tensor]:
        out = self.fn()
        if not isinstance(out, (tuple, list)) or len(out) not in (2, 3):
            raise ClosureError("the closure of an empirical Fisher matrix has to return (loss, "
                               "outputs)")
        loss, outputs = a_loss(out[0]), tensors(out[1], "outputs")
        sizes = {_leading(z, self.batch_dim, "an output") for z in outputs}
        if len(sizes) > 1:
            raise ShapeError(f"the outputs hold different numbers of samples: {sorted(sizes)}")
        self._count = len(outputs)
        scores = grad([loss], outputs, retain_graph=True, allow_unused=True,
                      materialize_grads=True)
        return [*outputs, *scores]                          # type: ignore[list-item]

    def _derive(self) -> tuple[Any, str]:
        return _outer(self, self._scores, lambda: self._count, 1)


def empirical_fisher_diagonal(fn: Callable[[], Any], params: Any, samples: int = 8,
                              reduction: str = "mean", batch_dim: int = 0,
                              generator: Any = None) -> Tensor:
    """The diagonal `[n]` of the empirical Fisher matrix: mean (or sum) of squared gradients.

    Arguments as for `EmpiricalFisherOperator`.  Estimated from `samples` backward passes, each
    of which adds the samples' gradients with random signs (Chapelle and Erhan 2011): the square
    of the sum is the sum of squares on average.  No gradient of a single sample is formed.
    """
    import facula
    params = parameters_of(params)
    op = object.__new__(EmpiricalFisherOperator)
    op.fn, op.batch_dim, op.reduction, op._count = fn, batch_dim, reduction, 1
    _reduction(reduction)
    trace, found, why = traced(op._scores, params)
    n = op._count
    rows = int(found[0].shape[batch_dim])
    apply: Callable[[Tensor], Any]
    if trace is not None:
        try:
            apply = linearise(trace, params, ("scores", n, batch_dim), score_rule(n, batch_dim),
                              size=rows).apply
        except NotTraceable:
            trace, found = None, op._scores()
    if trace is None:
        outputs, scores = found[:n], [s.detach() for s in found[n:]]
        layout = Layout(params)

        def apply(signs: Tensor) -> Any:
            seeds = []
            for s in scores:
                shape = [1] * s.ndim
                shape[batch_dim] = rows
                seeds.append((s * signs.reshape(shape)).to(s.dtype))
            return layout.join(grad(outputs, params, seeds, retain_graph=True,
                                    allow_unused=True)).detach()
    total: Any = 0.0
    for _ in range(samples):
        with facula.no_grad():
            draw: Any = facula.randint(0, 2, (rows,), generator=generator,
                                       dtype=params[0].dtype)
            signs = draw * 2 - 1
            _record.flush(_record._local.rec)
        total = total + apply(signs) ** 2
        _record.flush(_record._local.rec, True)
    return total * (op._scale(rows) / samples)              # type: ignore[no-any-return]
