"""Gauss-Newton with Levenberg's and Marquardt's damping, for least squares."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.curvature import GaussNewtonOperator
from facula.curvature.cg import conjugate_gradients
from facula.curvature.linear import Layout
from facula.curvature.operators import parameters_of
from facula.errors import ClosureError, NotFiniteError
from facula.graph import record as _record
from facula.graph.record import recorder
from facula.optim.hessian_free import StepRejectedWarning
from facula.optim.optimizer import Optimizer, check
from facula.tensor import Tensor, from_array

__all__ = ["LevenbergMarquardt"]


class LevenbergMarquardt(Optimizer):
    """Minimises half the sum of squares of residuals (Levenberg 1944, Marquardt 1963).

    Each step solves (J'J + lambda D) d = -J'r, with J the Jacobian of the residuals r and D the
    identity or, with `scaled`, the diagonal of J'J.  Lambda follows how well the linear model
    foretold the new sum (Nielsen 1999).  `damping=0` is the Gauss-Newton method.

    params     the parameters, one group, all float32 or all float64
    damping    lambda at the start; 0 stays 0
    scaled     Marquardt's scaling: the step does not depend on the parameters' units
    tries      how often a step that raises the sum is tried again with more damping
    dense      up to how many parameters J'J is formed and factored; conjugate gradients beyond
    tol        of conjugate gradients: the residual's norm over that of the gradient
    max_iter   products in one run of conjugate gradients

    `step(closure)` takes a closure that returns the residuals, a tensor or several, and returns
    the loss before the step, half the sum of their squares.  A step that would raise it is not
    taken: with no damping, or after `tries` tries, a `StepRejectedWarning` says so and the
    parameters keep their values.  Raises NotFiniteError for a NaN or infinity in residuals or
    Jacobian, ClosureError for a closure that returns something else.
    """

    def __init__(self, params: Any, damping: float = 1e-3, scaled: bool = True, tries: int = 10,
                 dense: int = 1000, tol: float = 1e-10, max_iter: int = 1000) -> None:
        check("damping", damping, 0.0 <= damping)
        check("tries", tries, tries >= 1)
        check("max_iter", max_iter, max_iter >= 1)
        super().__init__(params, {"damping": damping, "scaled": scaled, "tries": tries,
                                  "dense": dense, "tol": tol, "max_iter": max_iter})
        if len(self.param_groups) != 1:
            raise ValueError("LevenbergMarquardt doesn't support per-parameter options "
                             "(parameter groups)")
        self._params = parameters_of(self.param_groups[0]["params"])
        self._layout = Layout(self._params)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Make one step; `closure` returns the residuals."""
        if closure is None:
            raise TypeError("LevenbergMarquardt.step() missing 1 required positional argument: "
                            "'closure'")
        rec = recorder()
        saved, rec.grad = rec.grad, False
        start = [p.detach().clone() for p in self._params]
        _record.flush(rec)
        try:
            return self._step(closure, start)
        except BaseException:
            self._place(start, None)
            raise
        finally:
            rec.grad = saved

    def _place(self, start: Sequence[Any], direction: np.ndarray | None) -> None:
        for k, p in enumerate(self._params):
            if direction is None:
                p.copy_(start[k])                           # type: ignore[attr-defined]
                continue
            at, size = self._layout.starts[k], self._layout.sizes[k]
            p.copy_(start[k] + from_array(              # type: ignore[attr-defined]
                direction[at:at + size].reshape(self._layout.shapes[k])))
        _record.flush(recorder())

    def _step(self, closure: Callable[[], Any], start: list[Tensor]) -> Any:
        group, state = self.param_groups[0], self.state[self._params[0]]
        damping = state.setdefault("damping", float(group["damping"]))
        growth = state.setdefault("growth", 2.0)
        matrix = GaussNewtonOperator(lambda: _squares(closure()), self._params)
        assert matrix.loss is not None and matrix.gradient is not None
        loss = matrix.loss
        before = float(loss)                                # type: ignore[arg-type]
        g = np.array(matrix.gradient._peek())
        if not (math.isfinite(before) and np.isfinite(g).all()):
            raise NotFiniteError("the residuals or their derivatives hold a NaN or an infinity")
        n = matrix.shape[0]
        whole = np.array(matrix.to_dense()._peek()) if n <= group["dense"] else None
        if whole is not None:
            scale = np.diag(whole).copy()
        elif group["scaled"]:
            scale = np.abs(np.array(matrix.diagonal(16)._peek()))
        if group["scaled"]:
            scale = np.maximum(scale, 1e-12 * max(float(scale.max(initial=0.0)), 1e-300))
        else:
            scale = np.ones(n, g.dtype)
        slope = 0.0
        for _ in range(group["tries"]):
            d = self._solve(matrix, whole, g, damping, scale.astype(g.dtype))
            slope = float(g @ d)
            self._place(start, d)
            after = float(_squares(closure())[0])
            promised = -0.5 * slope + 0.5 * damping * float(d @ (scale * d))
            if after <= before and math.isfinite(after):
                ratio = (before - after) / promised if promised > 0 else 0.0
                damping *= max(1.0 / 3.0, 1.0 - (2.0 * ratio - 1.0) ** 3)
                state["damping"], state["growth"] = damping, 2.0
                return loss
            if damping == 0.0 or abs(slope) <= 8 * np.finfo(g.dtype).eps * abs(before):
                break
            damping *= growth
            growth *= 2.0
        self._place(start, None)
        state["damping"], state["growth"] = damping, growth
        if abs(slope) > 8 * np.finfo(g.dtype).eps * abs(before):
            warnings.warn(f"LevenbergMarquardt rejected a step: none lowers the loss of "
                          f"{before:.6g} (slope {slope:.3g}, damping {damping:.3g})",
                          StepRejectedWarning, stacklevel=4)
        return loss

    def _solve(self, matrix: GaussNewtonOperator, whole: np.ndarray | None, g: np.ndarray,
               damping: float, scale: np.ndarray) -> np.ndarray:
        group = self.param_groups[0]
        if whole is not None:
            damped = whole.astype(np.float64) + damping * np.diag(scale.astype(np.float64))
            try:
                out = np.linalg.solve(damped, -g.astype(np.float64))
            except np.linalg.LinAlgError:                   # the least norm where many would do
                out = np.linalg.lstsq(damped, -g.astype(np.float64), rcond=None)[0]
            return np.asarray(out, dtype=g.dtype)
        diagonal = from_array((damping * scale).astype(g.dtype))
        full = from_array(((1.0 + damping) * scale + 1e-30).astype(g.dtype))
        found = conjugate_gradients(
            matrix._linear, from_array(-g), diagonal=diagonal,
            preconditioner=full if group["scaled"] else None, tol=group["tol"],
            max_iter=group["max_iter"], numbers=matrix._numbers())
        return np.array(found.x._peek())


def _squares(out: Any) -> tuple[Any, list[Tensor]]:
    """Half the sum of squares, and the residuals."""
    parts = [out] if isinstance(out, Tensor) else out
    if not isinstance(parts, (list, tuple)) or not parts \
            or not all(isinstance(r, Tensor) and r.dtype.kind == "f" for r in parts):
        raise ClosureError("the closure has to return the residuals, a Tensor of real numbers or "
                           "several of them")
    total: Any = None
    for r in parts:
        part = (r * r).sum()                                # type: ignore[operator]
        total = part if total is None else total + part
    return total * 0.5, list(parts)
