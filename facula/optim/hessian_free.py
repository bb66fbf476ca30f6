"""Hessian-free optimisation: truncated Newton steps by conjugate gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from facula.curvature import GaussNewtonOperator, HessianOperator
from facula.curvature.cg import Solution, conjugate_gradients
from facula.curvature.linear import Layout
from facula.curvature.operators import CurvatureOperator, a_loss, parameters_of
from facula.curvature.preconditioners import Preconditioning, Problem, preconditioning
from facula.curvature.trace import recorded
from facula.errors import ClosureError, GradientError, NotFiniteError
from facula.graph import record as _record
from facula.graph.record import recorder
from facula.optim.optimizer import Optimizer, check
from facula.tensor import Tensor, scalar

__all__ = ["HessianFree", "Report", "StepRejectedWarning"]

Closure = Callable[[], Any]


class StepRejectedWarning(UserWarning):
    """A step was not taken, because it would have raised the loss."""


@dataclass
class Report:
    """What the last step of `HessianFree` did.

    loss, new_loss  the loss before, and after (the same where the step was rejected)
    accepted        whether the parameters changed
    reason          why conjugate gradients stopped, or why the step was rejected
    iterations      products of conjugate gradients, and `chosen` the iterate that was taken
    step            the factor that the line search put on the direction
    ratio           how much the loss fell over how much the quadratic model said it would
    damping         the damping of the next step
    evaluations     how often the closure was called
    """

    loss: float
    new_loss: float
    accepted: bool
    reason: str
    iterations: int
    chosen: int
    step: float
    ratio: float
    damping: float
    evaluations: int


class HessianFree(Optimizer):
    """Hessian-free optimisation (Martens 2010; Martens and Sutskever 2012).

    Every step minimises the quadratic model of the loss with the damped Gauss-Newton matrix by
    preconditioned conjugate gradients, whose products come from the graph: any model will do.

    params            the parameters, one group, all float32 or all float64; or a module
    lr                a factor on every step
    damping           lambda at the start; the Levenberg-Marquardt rule changes it: times 3/2
                      where the model promised four times what came, times 2/3 where it promised
                      less than 4/3 of it.  It stays at or above `min_damping`
    max_iter          products in one run of conjugate gradients
    progress          the run stops when over the last k = max(10, i/10) iterations the quadratic
                      fell by less than a fraction k * progress
    decay             conjugate gradients start at `decay` times where they ended the time before
    momentum          conjugate gradients start at zero instead, and the step is where the
                      quadratic is least in the plane of what they found and of the step before
                      (Martens and Grosse 2015, section 7), at one more product.  For small
                      batches of curvature, whose noise a start elsewhere than at zero brings
                      into the residual; few iterations do then, with Kronecker factors one
    preconditioner    what approximates the matrix: `curvature.FisherDiagonal(...)`, short
                      'fisher'; `curvature.Kronecker(...)`, short 'kronecker', for a module;
                      None: nothing
    structural        mu of structural damping for recurrent nets: mu * lambda * J'J of the hidden
                      states that the closure returns is added to the matrix
    batch_dim         the dimension of outputs and hidden states along which samples lie
    reduction         whether the loss is a 'mean' or a 'sum' over samples
    backtrack         look at earlier iterates of conjugate gradients, and take the best
    line_search       shorten the step until the loss falls by at least 0.01 times what the
                      slope promises
    check_closure     compare the losses of two calls, to see that the closure is deterministic

    The closure takes no arguments, computes with the parameters, and calls neither `zero_grad`
    nor `backward`.  It returns

        (loss, outputs)             the loss and the tensor(s) that it was computed from, as
                                    logits or predictions: the Gauss-Newton matrix
        (loss, outputs, hidden)     the hidden states besides, for structural damping
        loss                        the Hessian, which has to be positive with the damping

    It has to return the same loss for the same parameters: the same batch, and no dropout.

        opt = facula.optim.HessianFree(model.parameters())
        for x, y in loader:
            def closure():
                z = model(x)
                return F.cross_entropy(z, y), z
            loss = opt.step(closure)

    A step that would raise the loss is not taken: the parameters keep their values, the damping
    grows, a `StepRejectedWarning` says so, and `report.accepted` is False.  Raises
    NotFiniteError for a NaN or infinity in the loss, gradient or curvature, CurvatureError for
    curvature that is not positive, ClosureError for a closure that is not deterministic or
    returns something else; the parameters then are as they were.
    """

    def __init__(self, params: Any, lr: float = 1.0, damping: float = 1.0,
                 max_iter: int = 250, progress: float = 5e-4, decay: float = 0.95,
                 preconditioner: str | Preconditioning | None = "fisher",
                 structural: float = 0.0, batch_dim: int = 0, reduction: str = "mean",
                 backtrack: bool = True, line_search: bool = True, min_damping: float = 0.0,
                 check_closure: bool = True, momentum: bool = False) -> None:
        check("learning rate", lr, 0.0 < lr)
        check("damping", damping, 0.0 <= damping)
        check("min_damping", min_damping, 0.0 <= min_damping)
        check("max_iter", max_iter, max_iter >= 1)
        check("progress", progress, progress >= 0.0)
        check("decay", decay, 0.0 <= decay <= 1.0)
        check("structural", structural, structural >= 0.0)
        check("reduction", reduction, reduction in ("mean", "sum"))
        self.preconditioner = preconditioning(preconditioner)
        given = params
        if hasattr(params, "named_parameters"):
            params = parameters_of(params)
        super().__init__(params, {
            "lr": lr, "damping": damping, "max_iter": max_iter, "progress": progress,
            "decay": decay, "structural": structural, "batch_dim": batch_dim,
            "reduction": reduction, "backtrack": backtrack, "line_search": line_search,
            "min_damping": min_damping, "check_closure": check_closure,
            "momentum": bool(momentum)})
        if len(self.param_groups) != 1:
            raise ValueError("HessianFree doesn't support per-parameter options (parameter "
                             "groups)")
        self._params = parameters_of(self.param_groups[0]["params"])
        self._layout = Layout(self._params)
        self._precondition = None if self.preconditioner is None else self.preconditioner.begin(
            Problem(given, self._params, self._layout, self))
        self.report: Report | None = None

    # -- the parameters as one vector
    def _here(self) -> Tensor:
        import facula
        return facula.cat([p.detach().reshape(-1) for p in self._params])  # type: ignore

    def _move(self, start: Any, by: float, direction: Any) -> None:
        """Put the parameters at start + by * direction."""
        def place(start: Any, step: Any, direction: Any) -> list[Tensor]:
            return self._layout.split(start + direction * step)

        new = recorded(("hessian-free", tuple(self._layout.shapes)),
                       [start, scalar(by, start.dtype), direction], place)
        for p, value in zip(self._params, new):
            p.copy_(value)                                  # type: ignore[attr-defined]
        _record.flush(recorder())

    def _at(self, closure: Closure, start: Tensor, by: float, direction: Tensor) -> float:
        """The loss there; infinite where it is no number, minus infinity included."""
        self._move(start, by, direction)
        loss = _loss(_called(closure))
        return loss if math.isfinite(loss) else math.inf

    # -- a step
    def step(self, closure: Closure | None = None,       # type: ignore[override]
             curvature: Closure | None = None) -> Any:
        """Make one step; returns the loss before it.

        closure    see above: gradient, line search and, unless `curvature` is given, the matrix
        curvature  a closure of another, usually smaller, batch for the matrix
        """
        if closure is None:
            raise TypeError("HessianFree.step() missing 1 required positional argument: "
                            "'closure'")
        rec = recorder()
        saved, rec.grad = rec.grad, False
        start = self._here()
        _record.flush(rec)
        try:
            return self._step(closure, curvature, start)
        except BaseException:
            # Whatever went wrong, the parameters are where they were.
            self._move(start, 0.0, start)
            raise
        finally:
            rec.grad = saved

    def _step(self, closure: Closure, other: Closure | None, start: Tensor) -> Any:
        import facula
        group = self.param_groups[0]
        state = self.state[self._params[0]]
        damping = state.setdefault("damping", float(group["damping"]))
        count = [0]
        closure = _counted(closure, count)
        other = None if other is None else _counted(other, count)
        out = _called(closure) if other is None or group["check_closure"] else None
        before = math.inf if out is None else self._finite(_loss(out))
        matrix: CurvatureOperator
        if other is None:
            named = isinstance(out, (tuple, list))
            matrix = self._matrix(named, closure, damping, True)
            assert matrix.loss is not None and matrix.gradient is not None
            loss, gradient = matrix.loss, matrix.gradient
        else:
            loss, gradient, named = self._gradient(closure)
            if out is None:
                before = self._finite(float(loss))          # type: ignore[arg-type]
            matrix = self._matrix(named, other, damping, False)
        if group["check_closure"]:
            self._same(before, float(loss))                 # type: ignore[arg-type]
        preconditioner = None
        if self._precondition is not None and named:
            preconditioner = self._precondition(other or closure, damping)
        old = state.get("direction")
        with_start = None if old is None or group["momentum"] else \
            (old * group["decay"]).detach()
        found = conjugate_gradients(
            matrix._linear, -gradient, start=with_start,    # type: ignore[operator]
            damping=damping, preconditioner=preconditioner, progress=group["progress"],
            max_iter=group["max_iter"], numbers=matrix._numbers(),
            keep=_milestones(group["max_iter"]) if group["backtrack"] else None)
        if group["momentum"] and old is not None:
            found = _in_plane(matrix, -gradient, found, old, damping)  # type: ignore[operator]
        direction, chosen, after = self._backtrack(closure, start, found, before)
        slope = float((gradient * direction).sum())         # type: ignore[operator]
        promised = self._promised(matrix, direction, slope, damping, found, chosen)
        ratio = (after - before) / promised if promised < 0 else -math.inf
        # Below this the loss cannot tell a step from none.
        still = abs(slope) <= 8 * facula.finfo(start.dtype).eps * abs(before)
        step, after = (0.0, before) if still else \
            self._search(closure, start, direction, before, after, slope)
        if still:
            pass
        elif ratio < 0.25 or not math.isfinite(ratio):
            damping *= 1.5
        elif ratio > 0.75:
            damping *= 2.0 / 3.0
        accepted = step > 0.0
        reason = found.reason
        if accepted:
            self._move(start, step, direction)
            state["direction"] = ((direction * step) if group["momentum"]  # type: ignore
                                  else found.x).detach()
        elif still:
            self._move(start, 0.0, start)
            reason = f"a minimum, as far as rounding shows: the slope is {slope:.3g}"
        else:
            self._move(start, 0.0, start)
            state.pop("direction", None)
            reason = (f"no step along the direction of conjugate gradients lowers the loss of "
                      f"{before:.6g} (slope {slope:.3g})")
            warnings.warn(f"HessianFree rejected a step: {reason}; the damping is now "
                          f"{damping:.3g}", StepRejectedWarning, stacklevel=4)
        _record.flush(recorder())
        state["damping"] = max(damping, group["min_damping"])
        state["n_iter"] = state.get("n_iter", 0) + 1
        self.report = Report(before, after, accepted, reason, found.iterations, chosen, step,
                             ratio, state["damping"], count[0])
        return loss

    @staticmethod
    def _finite(loss: float) -> float:
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss} before the step: the parameters, the "
                                 "batch or the closure hold a NaN or an infinity")
        return loss

    def _matrix(self, named: bool, closure: Closure, damping: float, gradient: bool
                ) -> CurvatureOperator:
        group = self.param_groups[0]
        if not named:
            if group["structural"]:
                raise ClosureError("structural damping acts on hidden states: let the closure "
                                   "return (loss, outputs, hidden)")
            return HessianOperator(closure, self._params)
        return GaussNewtonOperator(closure, self._params, group["structural"] * damping,
                                   group["batch_dim"], gradient)

    def _gradient(self, closure: Closure) -> tuple[Tensor, Tensor, bool]:
        from facula.autograd.backward import grad
        rec = recorder()
        rec.grad = True
        try:
            out = closure()
            named = isinstance(out, (tuple, list))
            loss = a_loss(out[0] if named and out else out)
            parts = grad([loss], self._params, allow_unused=True)
        finally:
            rec.grad = False
        flat = self._layout.join(list(parts))
        _record.flush(rec)
        return loss.detach(), flat, named

    def _same(self, first: float, second: float) -> None:
        wide = 1e-4 if self._layout.dtype.itemsize < 8 else 1e-8
        if not abs(first - second) <= wide * max(abs(first), abs(second), 1e-8):
            raise ClosureError(f"the closure returned {first:.8g} and then {second:.8g} for the "
                               "same parameters: it has to use the same batch in every call of a "
                               "step, and no dropout or other noise")

    def _backtrack(self, closure: Closure, start: Tensor, found: Solution, before: float
                   ) -> tuple[Tensor, int, float]:
        """The best of the last iterates, its number and its loss."""
        lr = self.param_groups[0]["lr"]
        best, chosen = found.x, found.iterations
        loss = self._at(closure, start, lr, best)
        for number, x in reversed(found.iterates):
            if number == found.iterations:
                continue
            value = self._at(closure, start, lr, x)
            if value >= loss and math.isfinite(loss):
                break
            best, chosen, loss = x, number, value
        return best * lr if lr != 1.0 else best, chosen, loss  # type: ignore

    def _promised(self, matrix: CurvatureOperator, direction: Any, slope: float,
                  damping: float, found: Solution, chosen: int) -> float:
        """How much the loss changes in the quadratic model without damping."""
        group = self.param_groups[0]
        if group["structural"]:
            assert isinstance(matrix, GaussNewtonOperator)
            matrix.hidden = 0.0
            return slope + 0.5 * float((direction * matrix.matvec(direction)).sum())
        # Conjugate gradients know their quadratic: its curved part without that of the damping.
        lr = group["lr"]
        size = float((direction * direction).sum())
        curved = (found.values[chosen] - slope / lr) * lr * lr - 0.5 * damping * size
        return slope + max(curved, 0.0)

    def _search(self, closure: Closure, start: Tensor, direction: Tensor, before: float,
                after: float, slope: float) -> tuple[float, float]:
        """The step size and the loss there; 0 where none will do."""
        if not self.param_groups[0]["line_search"]:
            return (1.0, after) if after <= before else (0.0, before)
        if slope >= 0.0:
            return (1.0, after) if after < before else (0.0, before)
        step, tried = 1.0, 0
        while not after <= before + 0.01 * step * slope:
            step *= 0.8
            tried += 1
            if tried > 60:
                return 0.0, before
            after = self._at(closure, start, step, direction)
        return step, after


def _in_plane(matrix: CurvatureOperator, b: Any, found: Solution, old: Any, damping: float
              ) -> Solution:
    """Where x'Ax/2 - b'x, damped, is least among the sums of multiples of what conjugate
    gradients found and of `old`."""
    import facula

    def numbers(b: Any, x: Any, rest: Any, d: Any, ad: Any, shift: Any) -> list[Any]:
        ax, ad = b - rest, ad + d * shift
        return [facula.stack([(b * x).sum(), (b * d).sum(), (x * ax).sum(), (d * ax).sum(),
                              (d * ad).sum()])]

    x = found.x
    row, = recorded(("hessian-free plane",), [
        b, x, found.rest, old, matrix._apply(old), scalar(damping, b.dtype)], numbers)
    bx, bd, xx, xd, dd = row.tolist()                       # type: ignore[attr-defined]
    if not all(map(math.isfinite, (bx, bd, xx, xd, dd))):
        raise NotFiniteError("the product of the curvature matrix with the last step holds a NaN "
                             "or an infinity")
    area = xx * dd - xd * xd
    if not area > 1e-6 * xx * dd:
        return found                                        # as good as parallel
    share, kept = (bx * dd - bd * xd) / area, (bd * xx - bx * xd) / area
    best = recorded(("hessian-free sum",), [
        x, scalar(share, b.dtype), old, scalar(kept, b.dtype)],
        lambda x, share, old, kept: [x * share + old * kept])[0]
    least = -0.5 * (share * bx + kept * bd)
    return found._replace(x=best, values=[*found.values[:-1], least], iterates=[])


def _counted(closure: Closure, count: list[int]) -> Closure:
    """The closure, and in count[0] how often it has been called."""
    def call() -> Any:
        count[0] += 1
        return closure()
    return call


def _called(closure: Closure) -> Any:
    """What the closure returns where only the loss is asked for, gradients being off."""
    try:
        return closure()
    except GradientError as error:
        raise ClosureError(
            "the closure of HessianFree only computes the loss: unlike that of LBFGS it calls "
            "neither zero_grad() nor backward(), nor asks for a gradient otherwise unless under "
            f"enable_grad() ({error})") from error


def _loss(out: Any) -> float:
    """The number in what a closure returned."""
    value = out[0] if isinstance(out, (tuple, list)) and out else out
    if not isinstance(value, Tensor):
        raise ClosureError(f"the closure has to return a loss, not {type(value).__name__}")
    return float(value)                                     # type: ignore[arg-type]


def _milestones(most: int, gamma: float = 1.3) -> Callable[[int], bool]:
    """Which iterates are kept for backtracking: ceil(gamma**j) (Martens 2010, section 4.6)."""
    kept = set()
    x = 1.0
    while x <= most:
        kept.add(math.ceil(x))
        x *= gamma
    return kept.__contains__
