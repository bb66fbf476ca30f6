"""Conjugate gradients on one flat vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from facula.curvature.trace import recorded
from facula.errors import CurvatureError, NotFiniteError
from facula.graph import record as _record
from facula.tensor import Tensor, scalar

__all__ = ["Preconditioner", "Solution", "conjugate_gradients"]

LOOK = 5
"""Iterations between two looks at the numbers: in between nothing waits for a result."""


class Solution(NamedTuple):
    """What conjugate gradients found.

    x            the last iterate `[n]`
    iterations   how many products it took
    values       the quadratic x'Ax/2 - b'x after each iteration, the start first
    residual     the norm of b - Ax over the norm of b
    iterates     (iteration, x) for those that were asked for
    reason       why it stopped: "residual", "progress" or "iterations"
    rest         b - Ax `[n]`
    """

    x: Tensor
    iterations: int
    values: list[float]
    residual: float
    iterates: list[tuple[int, Tensor]]
    reason: str
    rest: Tensor


def _dot(a: Any, b: Any) -> Any:
    return (a * b).sum()


class Preconditioner(Protocol):
    """An approximation M of the matrix, known by what its inverse does.

    key      what `apply` depends on besides the tensors; hashable
    tensors  what it computes with
    """

    key: Any
    tensors: list[Tensor]

    def apply(self, v: Any, *tensors: Any) -> Any:
        """M**-1 v, of the vector `[n]` and `tensors`."""


class _Scaled:
    """A diagonal M."""

    key = "diagonal"

    def __init__(self, inverse: Any):
        self.tensors = [inverse]

    def apply(self, v: Any, *tensors: Any) -> Any:
        return v * tensors[0]


def conjugate_gradients(linear: Any, b: Tensor, *, start: Tensor | None = None,
                        damping: float = 0.0, diagonal: Tensor | None = None,
                        preconditioner: Tensor | Preconditioner | None = None, tol: float = 0.0,
                        progress: float = 0.0, min_iter: int = 1, max_iter: int = 250,
                        keep: Callable[[int], bool] | None = None,
                        numbers: tuple[Tensor, ...] = ()) -> Solution:
    """Solve (A + damping I + diag(diagonal)) x = b for a positive matrix A.

    linear          what multiplies by A: has `apply(v, numbers)` for a flat vector
    start           where to begin; zero unless given.  It is shortened as far as that lowers the
                    quadratic
    preconditioner  a diagonal M `[n]` that approximates the matrix, its elements being positive;
                    or any positive M as a `Preconditioner`
    tol             stop when the residual's norm is below tol times that of b
    progress        stop when the quadratic phi improved by less than a fraction k * progress
                    over the last k = max(10, iteration/10) iterations (Martens 2010, section 4.4)
    keep            which iterates to keep, by number

    Raises CurvatureError where the matrix is found not to be positive definite, NotFiniteError
    for a NaN or an infinity.
    """
    import facula
    rec = _record._local.rec
    grad, rec.grad = rec.grad, False
    try:
        dtype = b.dtype
        inverse: Any = preconditioner
        if preconditioner is None or isinstance(preconditioner, Tensor):
            inverse = _Scaled(facula.ones_like(b) if preconditioner is None
                              else 1.0 / preconditioner)    # type: ignore[operator]
            _record.flush(rec)
        shift = scalar(float(damping), dtype)

        def times(v: Any) -> Any:
            out = linear.apply(v, numbers) + v * shift
            return out if diagonal is None else out + v * diagonal

        size = float(_dot(b, b)) ** 0.5                     # type: ignore[arg-type]
        if not size < float("inf"):
            raise NotFiniteError("the right side of the linear system (the gradient) holds a NaN "
                                 "or an infinity")
        x: Any = facula.zeros_like(b) if start is None else start
        ax: Any = times(x) if start is not None else facula.zeros_like(b)

        def begin(b: Any, x: Any, ax: Any, *inner: Any) -> Any:
            # The quadratic is smallest on the line through x there; what was the solution of
            # another system may be far too long, and worse than zero.
            curve = _dot(x, ax)
            share = (_dot(b, x) / curve.where(curve > 0, 1.0)).clamp(0.0, 1.0)
            x, ax = x * share, ax * share
            r = b - ax
            z = inverse.apply(r, *inner)
            return x, r, z.clone(), _dot(r, z), _dot(x, b + r) * -0.5, _dot(r, r)

        x, r, p, rho, phi, rr = recorded(("cg.start", inverse.key),
                                         [b, x, ax, *inverse.tensors], begin)
        kept: list[tuple[int, Tensor]] = []
        history: list[Any] = []
        values = [float(phi)]                               # type: ignore[arg-type]
        if size == 0.0 or float(rr) == 0.0:                 # type: ignore[arg-type]
            return Solution(x, 0, values, 0.0, kept, "residual", r)
        plan: Any = getattr(linear, "plan", None)
        # The last iteration needs no direction for another one; where that is dear, it is a
        # program of its own.
        last, dear = False, not isinstance(inverse, _Scaled)
        key = ("cg", plan, inverse.key, diagonal is not None)
        given = list(getattr(linear, "kept", ()))
        extra = [] if diagonal is None else [diagonal]

        def turn(b: Any, x: Any, r: Any, p: Any, rho: Any, ap: Any, *inner: Any) -> Any:
            curve = _dot(p, ap)
            # Where the solution is exact already there is nowhere to go.
            step = facula.where(curve == 0, facula.zeros_like(rho), rho / curve)
            x = x + p * step
            r = r - ap * step
            seen = facula.stack([curve, _dot(x, b + r) * -0.5, _dot(r, r)])
            if last:
                return x, r, seen
            z = inverse.apply(r, *inner)
            new = _dot(r, z)
            p = z + p * facula.where(rho == 0, facula.zeros_like(rho), new / rho)
            return x, r, seen, p, new

        def whole(*tensors: Any) -> Any:
            n, m, e = len(given), len(numbers), len(extra)
            b, x, r, p, rho, shift, *inner = tensors[n + m + e:]
            ap = plan.product(*tensors[:n], p, *tensors[n:n + m])[0] + p * shift
            if e:
                ap = ap + p * tensors[n + m]
            return turn(b, x, r, p, rho, ap, *inner)

        reason, k, residual = "iterations", 0, 1.0
        least = 2.0 * float(facula.finfo(dtype).eps)        # what rounding leaves
        while k < max_iter:
            last = dear and k + 1 == max_iter
            if plan is not None:
                x, r, seen, *further = recorded(
                    (*key, last), [*given, *numbers, *extra, b, x, r, p, rho, shift,
                                   *inverse.tensors], whole)
                rec.graph.last([t._node for t in given])
            else:
                ap = times(p)
                x, r, seen, *further = recorded(
                    ("cg.turn", inverse.key, last), [b, x, r, p, rho, ap, *inverse.tensors], turn)
            k += 1
            if further:
                p, rho = further
            history.append(seen)
            if keep is not None and keep(k):
                kept.append((k, x))
            _record.flush(rec, True)
            if k % LOOK and k != max_iter:
                continue
            for number, row in enumerate(history, k - len(history) + 1):
                curve, phi, rr = row.tolist()
                _check(curve, phi, number, residual <= least)
                values.append(phi)
                residual = rr ** 0.5 / size
            history = []
            if residual <= max(tol, least):
                reason = "residual"
                break
            back = max(10, k // 10)
            if progress > 0 and k >= min_iter and k > back and values[-1] < 0 \
                    and (values[-1] - values[-1 - back]) / values[-1] < back * progress:
                reason = "progress"
                break
        return Solution(x, k, values, residual, kept, reason, r)
    finally:
        rec.grad = grad


def _check(curve: float, phi: float, number: int, solved: bool) -> None:
    if not abs(phi) < float("inf") or curve != curve:
        raise NotFiniteError(f"iteration {number} of conjugate gradients made a NaN or an "
                             "infinity: the curvature matrix or the right side holds one")
    if curve <= 0.0 and not solved:
        raise CurvatureError(
            f"iteration {number} of conjugate gradients met a direction p of curvature "
            f"p'Ap = {curve:.3g}: the matrix is not positive definite. Use the Gauss-Newton "
            "matrix (let the closure return the loss and the outputs it was computed from), or "
            "more damping")
