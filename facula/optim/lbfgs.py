"""L-BFGS: a quasi-Newton method for whole-batch problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facula.graph.record import recorder
from facula.optim.optimizer import Optimizer, check
from facula.tensor import Tensor

__all__ = ["LBFGS"]


def _cubic(x1: float, f1: float, g1: float, x2: float, f2: float, g2: float,
           bounds: tuple[float, float] | None = None) -> float:
    """The minimum of the cubic through two points with slopes, within bounds."""
    low, high = bounds if bounds is not None else (min(x1, x2), max(x1, x2))
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if square < 0:
        return (low + high) / 2.0
    d2 = square ** 0.5
    if x1 <= x2:
        at = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    else:
        at = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    return min(max(at, low), high)


class LBFGS(Optimizer):
    """Limited-memory BFGS (Nocedal 1980), with an optional strong-Wolfe line search.

    One group only; `step(closure)` needs the closure, which it calls several times.
    """

    def __init__(self, params: Any, lr: float = 1, max_iter: int = 20,
                 max_eval: int | None = None, tolerance_grad: float = 1e-7,
                 tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None) -> None:
        check("learning rate", lr, 0.0 <= lr)
        if max_eval is None:
            max_eval = max_iter * 5 // 4
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter, "max_eval": max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn})
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params = self.param_groups[0]["params"]

    # -- all parameters as one vector
    def _gather(self) -> Tensor:
        import facula
        parts = []
        for p in self._params:
            g = p._grad
            flat: Any = (facula.zeros_like(p) if g is None else g).detach()
            flat = flat.reshape(-1)
            parts.append(facula.view_as_real(flat).reshape(-1) if p.dtype.is_complex else flat)
        return facula.cat(parts)                            # type: ignore[no-any-return]

    def _move(self, t: float, direction: Tensor) -> None:
        import facula
        start = 0
        for p in self._params:
            n = p.numel() * (2 if p.dtype.is_complex else 1)
            part = direction[start:start + n]               # type: ignore[index]
            start += n
            if p.dtype.is_complex:
                part = facula.view_as_complex(part.reshape(-1, 2).clone())
            p.add_(part.reshape(p.shape), alpha=t)

    def _copies(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._params]

    def _put_back(self, copies: list[Tensor]) -> None:
        for p, c in zip(self._params, copies, strict=True):
            p.copy_(c)

    def _at(self, closure: Any, start: list[Tensor], t: float, d: Tensor) -> tuple[float, Tensor]:
        self._move(t, d)
        loss = float(closure())
        g = self._gather()
        self._put_back(start)
        return loss, g

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make up to `max_iter` iterations; `closure` clears gradients, and returns the loss."""
        if closure is None:
            raise TypeError("LBFGS.step() missing 1 required positional argument: 'closure'")
        rec = recorder()
        saved = rec.grad

        def evaluate() -> Any:
            rec.grad = True
            try:
                return closure()
            finally:
                rec.grad = False

        rec.grad = False
        try:
            return self._iterate(evaluate)
        finally:
            rec.grad = saved

    def _iterate(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        lr, change = group["lr"], group["tolerance_change"]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        original = closure()
        loss, evals = float(original), 1
        state["func_evals"] += 1
        g = self._gather()
        if _largest(g) <= group["tolerance_grad"]:
            return original
        d, t = state.get("d"), state.get("t")
        dirs, steps = state.get("old_dirs"), state.get("old_stps")
        rho, scale = state.get("ro"), state.get("H_diag")
        before, before_loss = state.get("prev_flat_grad"), state.get("prev_loss")
        done = 0
        while done < group["max_iter"]:
            done += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                d, dirs, steps, rho, scale = -g, [], [], [], 1.0    # type: ignore[operator]
            else:
                y, s = g - before, d * t
                ys = _dot(y, s)
                if ys > 1e-10:
                    if len(dirs) == group["history_size"]:
                        for kept in (dirs, steps, rho):
                            kept.pop(0)
                    dirs.append(y)
                    steps.append(s)
                    rho.append(1.0 / ys)
                    scale = ys / _dot(y, y)
                alphas = state.setdefault("al", [None] * group["history_size"])
                d = _direction(g, dirs, steps, rho, scale, alphas)
            before, before_loss = g.clone(), loss           # type: ignore[attr-defined]
            t = min(1.0, 1.0 / float(g.abs().sum())) * lr if state["n_iter"] == 1 else lr
            gtd = _dot(g, d)
            if gtd > -change:
                break
            used = 0
            search = group["line_search_fn"]
            if search is not None:
                if search != "strong_wolfe":
                    raise RuntimeError("only 'strong_wolfe' is supported")
                start = self._copies()
                loss, g, t, used = _strong_wolfe(
                    lambda at, way: self._at(closure, start, at, way), t, d, loss, g, gtd,
                    most=group["max_eval"] - evals)
                self._move(t, d)
                optimal = _largest(g) <= group["tolerance_grad"]
            else:
                self._move(t, d)
                optimal = False
                if done != group["max_iter"]:
                    loss = float(closure())
                    g = self._gather()
                    optimal = _largest(g) <= group["tolerance_grad"]
                    used = 1
            evals += used
            state["func_evals"] += used
            if done == group["max_iter"] or evals >= group["max_eval"] or optimal:
                break
            if _largest(d * t) <= change or abs(loss - before_loss) < change:
                break
        state.update(d=d, t=t, old_dirs=dirs, old_stps=steps, ro=rho, H_diag=scale,
                     prev_flat_grad=before, prev_loss=before_loss)
        return original


def _dot(a: Any, b: Any) -> float:
    return float((a * b).sum())


def _largest(a: Any) -> float:
    return float(a.abs().max())


def _direction(g: Any, dirs: list[Any], steps: list[Any], rho: list[float],
               scale: float, alphas: list[Any]) -> Any:
    """-H g, H the inverse Hessian that the last steps tell of (the two-loop recursion).

    `alphas`, as long as the history may become, is overwritten.
    """
    q = -g
    for k in range(len(dirs) - 1, -1, -1):
        alphas[k] = _dot(steps[k], q) * rho[k]
        q = q - dirs[k] * alphas[k]
    r = q * scale
    for k in range(len(dirs)):
        r = r + steps[k] * (alphas[k] - _dot(dirs[k], r) * rho[k])
    return r


def _strong_wolfe(at: Callable[[float, Any], tuple[float, Any]], t: float, d: Any, f: float,
                  g: Any, gtd: float, c1: float = 1e-4, c2: float = 0.9,
                  tolerance: float = 1e-9, most: int = 25) -> tuple[float, Any, float, int]:
    """A step size along d at which the strong Wolfe conditions hold (Nocedal and Wright 2006).

    Returns the loss, the gradient, the step size and the number of evaluations.
    """
    size = _largest(d)
    g = g.clone()
    f_new, g_new = at(t, d)
    evals = 1
    gtd_new = _dot(g_new, d)
    t_old, f_old, g_old, gtd_old = 0.0, f, g, gtd
    done, count = False, 0
    # the bracket: [step, loss, gradient, slope] at its two ends
    bracket: list[list[Any]] = []
    while count < most:
        worse = f_new > f + c1 * t * gtd or (count > 1 and f_new >= f_old)
        if not worse and abs(gtd_new) <= -c2 * gtd:
            bracket = [[t, f_new, g_new, gtd_new]]
            done = True
            break
        if worse or gtd_new >= 0:
            bracket = [[t_old, f_old, g_old, gtd_old], [t, f_new, g_new.clone(), gtd_new]]
            break
        low, high = t + 0.01 * (t - t_old), t * 10
        previous = t
        t = _cubic(t_old, f_old, gtd_old, t, f_new, gtd_new, (low, high))
        t_old, f_old, g_old, gtd_old = previous, f_new, g_new.clone(), gtd_new
        f_new, g_new = at(t, d)
        evals += 1
        gtd_new = _dot(g_new, d)
        count += 1
    if count >= most:
        bracket = [[0.0, f, g, gtd], [t, f_new, g_new, gtd_new]]
    stuck = False
    low_at, high_at = (0, 1) if bracket[0][1] <= bracket[-1][1] else (1, 0)
    while not done and count < most:
        (a, fa, _, sa), (b, fb, _, sb) = bracket
        if abs(b - a) * size < tolerance:
            break
        t = _cubic(a, fa, sa, b, fb, sb)
        top, bottom = max(a, b), min(a, b)
        edge = 0.1 * (top - bottom)
        if min(top - t, t - bottom) < edge:
            # too close to an end: the first time, or at the end itself, move it inside
            if stuck or t >= top or t <= bottom:
                t = top - edge if abs(t - top) < abs(t - bottom) else bottom + edge
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        f_new, g_new = at(t, d)
        evals += 1
        gtd_new = _dot(g_new, d)
        count += 1
        if f_new > f + c1 * t * gtd or f_new >= bracket[low_at][1]:
            bracket[high_at] = [t, f_new, g_new.clone(), gtd_new]
            low_at, high_at = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
        else:
            if abs(gtd_new) <= -c2 * gtd:
                done = True
            elif gtd_new * (bracket[high_at][0] - bracket[low_at][0]) >= 0:
                bracket[high_at] = bracket[low_at]
            bracket[low_at] = [t, f_new, g_new.clone(), gtd_new]
    best = bracket[low_at] if len(bracket) > 1 else bracket[0]
    return best[1], best[2], best[0], evals
