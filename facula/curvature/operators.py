"""Curvature matrices as linear operators: what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from facula.curvature.cg import Solution, conjugate_gradients
from facula.curvature.lanczos import Spectrum, lanczos, ritz
from facula.curvature.linear import Layout
from facula.dtype import float32, float64
from facula.errors import ClosureError, DTypeError, GradientError, ShapeError
from facula.graph import record as _record
from facula.tensor import Tensor, from_array

__all__ = ["CurvatureOperator", "parameters_of"]

Vector = Tensor | Sequence[Tensor]


def parameters_of(params: Any) -> list[Tensor]:
    """The tensors that an operator is in: of a module, or an iterable.

    Raises ValueError if there are none or one is named twice, GradientError for one that
    requires no gradient or was computed, DTypeError unless all are float32 or all float64.
    """
    if hasattr(params, "parameters"):
        params = [p for p in params.parameters() if p.requires_grad]
    out = [params] if isinstance(params, Tensor) else list(params)
    if not out:
        raise ValueError("there are no parameters to take the curvature in")
    for k, p in enumerate(out):
        if not isinstance(p, Tensor):
            raise TypeError(f"parameter {k} has to be a Tensor, not {type(p).__name__}")
        if not (p.requires_grad and p.is_leaf):
            raise GradientError(f"parameter {k}, of shape {list(p.shape)}, has to be a leaf that "
                                "requires a gradient: call requires_grad_() on it before the "
                                "closure computes with it")
        if p.dtype not in (float32, float64):
            raise DTypeError(f"parameter {k} is {p.dtype.name}; curvature is computed in float32 "
                             "or float64 (a complex parameter can be made of view_as_real)")
        if p.dtype is not out[0].dtype:
            raise DTypeError(f"parameter {k} is {p.dtype.name} and parameter 0 is "
                             f"{out[0].dtype.name}: all have to have one dtype")
    if len({id(p) for p in out}) != len(out):
        raise ValueError("a parameter is named twice")
    return out


class CurvatureOperator:
    """A symmetric matrix `[n, n]` of curvature, n being the number of all parameters.

    It is known by its products with vectors.  A vector is a tensor `[n]`, the parameters one
    after the other, or a list of tensors in the parameters' shapes; the product comes back in
    the same form.  What does not depend on the vector is computed when the operator is made, at
    the values that the parameters have then; `refresh()` computes it anew.

    shape     (n, n)
    dtype     of the parameters
    params    the parameters
    loss      the loss where there is one, else None
    gradient  its gradient `[n]`, or None
    why       why products are made by differentiating twice backwards; empty if they are not
    """

    loss: Tensor | None = None
    gradient: Tensor | None = None

    def __init__(self, fn: Callable[[], Any], params: Any):
        if not callable(fn):
            raise TypeError("the first argument has to be a function without arguments, not "
                            f"{type(fn).__name__}")
        self.fn = fn
        self.params = parameters_of(params)
        self._layout = Layout(self.params)
        n = self._layout.total
        self.shape = (n, n)
        self.dtype = self.params[0].dtype
        self.why = ""
        self._linear: Any = None
        self.refresh()

    def refresh(self) -> None:
        """Call the function again and take the curvature where the parameters are now."""
        self._linear, self.why = self._derive()
        extras = self._linear.extras
        if len(extras) == 2:
            self.loss, self.gradient = extras

    def _derive(self) -> tuple[Any, str]:
        raise NotImplementedError(f"{type(self).__name__} derives no products")

    def _numbers(self) -> tuple[Tensor, ...]:
        return ()

    # -- vectors
    def flatten(self, v: Vector) -> Tensor:
        """A vector `[n]` of tensors in the parameters' shapes (or of a vector itself).

        Raises ShapeError or DTypeError where it does not fit, TypeError for anything else.
        """
        import facula
        if isinstance(v, Tensor):
            if tuple(v.shape) != (self.shape[0],):
                raise ShapeError(f"a vector of shape [{self.shape[0]}] is needed, or tensors in "
                                 f"the parameters' shapes; got shape {list(v.shape)}")
            if v.dtype is not self.dtype:
                raise DTypeError(f"the vector is {v.dtype.name} and the operator "
                                 f"{self.dtype.name}: convert it with .to()")
            return v.detach()
        parts = [] if isinstance(v, np.ndarray) else list(v)
        if isinstance(v, np.ndarray) or not all(isinstance(p, Tensor) for p in parts):
            raise TypeError("a vector has to be a Tensor, or a list of Tensors in the parameters' "
                            f"shapes, not {type(v).__name__}: facula.from_numpy() makes a Tensor "
                            "of an array, and to_scipy() an operator for arrays")
        if [tuple(p.shape) for p in parts] != self._layout.shapes:
            raise ShapeError(f"got tensors of shapes {[list(p.shape) for p in parts]} for "
                             f"parameters of shapes {[list(s) for s in self._layout.shapes]}")
        flat = facula.cat([p.detach().reshape(-1) for p in parts])
        return self.flatten(flat)                           # type: ignore[arg-type]

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """The parts of a vector `[n]` in the parameters' shapes."""
        out = []
        layout = self._layout
        for start, size, shape in zip(layout.starts, layout.sizes, layout.shapes):
            out.append(flat[start:start + size].reshape(shape))  # type: ignore[index]
        return out

    def _apply(self, flat: Tensor) -> Tensor:
        return self._linear.apply(flat, self._numbers())    # type: ignore[no-any-return]

    def matvec(self, v: Vector) -> Any:
        """The product with a vector, in the form in which the vector came."""
        out = self._apply(self.flatten(v))
        return out if isinstance(v, Tensor) else self.unflatten(out)

    rmatvec = matvec

    def matmat(self, vectors: Tensor) -> Tensor:
        """The products with the columns of a matrix `[n, k]`, as a matrix `[n, k]`.

        They are made several at a time, as many as 64 MiB hold of what one computes on its way.
        """
        import facula
        if vectors.ndim != 2 or vectors.shape[0] != self.shape[0]:
            raise ShapeError(f"a matrix [{self.shape[0]}, k] is needed, not one of shape "
                             f"{list(vectors.shape)}")
        if vectors.shape[1] == 0:
            return facula.zeros_like(vectors)               # type: ignore[no-any-return]
        rec = _record._local.rec
        many = getattr(self._linear, "rows", 1)
        with facula.no_grad():
            rows: Any = vectors.detach().t().contiguous()   # type: ignore[attr-defined]
            _record.flush(rec)
            out = []
            for k in range(0, rows.shape[0], many):
                some = rows[k:k + many].clone()
                if many > 1 and some.shape[0] > 1:
                    out.append(self._linear.apply_rows(some, self._numbers()))
                else:
                    out += [self._apply(self.flatten(row)).reshape(1, -1)  # type: ignore
                            for row in some.unbind(0)]
                _record.flush(rec, True)
            return facula.cat(out, 0).t()                   # type: ignore[no-any-return]

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Tensor) and other.ndim == 2:
            return self.matmat(other)
        return self.matvec(other)

    def __add__(self, other: Any) -> CurvatureOperator:
        return _Combined(self, 1.0, other)

    def __mul__(self, number: float) -> CurvatureOperator:
        return _Combined(self, float(number), None)

    __rmul__ = __mul__

    def damped(self, damping: float) -> CurvatureOperator:
        """This matrix + damping * identity."""
        return _Combined(self, 1.0, float(damping))

    # -- what can be learned from products
    def to_dense(self) -> Tensor:
        """The matrix itself, by n products: for small n."""
        import facula
        return self.matmat(facula.eye(self.shape[0], dtype=self.dtype))

    def _product(self, v: np.ndarray) -> np.ndarray:
        return self._apply(from_array(v))._peek()           # type: ignore[no-any-return]

    def _signs(self, generator: Any) -> Tensor:
        import facula
        draw: Any = facula.randint(0, 2, (self.shape[0],), generator=generator, dtype=self.dtype)
        return draw * 2 - 1                                 # type: ignore[no-any-return]

    def trace(self, samples: int = 32, generator: Any = None) -> Tensor:
        """The trace, estimated from `samples` products with random signs (Hutchinson 1990).

        The variance of the estimate is 2 (|A|_F**2 - sum of A_ii**2) / samples.
        """
        total: Any = 0.0
        for v in self._probes(samples, generator):
            total = total + (v * self._apply(v)).sum()      # type: ignore[operator]
            _record.flush(_record._local.rec, True)
        return total / samples                              # type: ignore[no-any-return]

    def diagonal(self, samples: int = 32, generator: Any = None) -> Tensor:
        """The diagonal `[n]`, estimated from products with random signs (Bekas, Kokiopoulou and
        Saad 2007).  Exact for a diagonal matrix."""
        total: Any = 0.0
        for v in self._probes(samples, generator):
            total = total + v * self._apply(v)              # type: ignore[operator]
            _record.flush(_record._local.rec, True)
        return total / samples                              # type: ignore[no-any-return]

    def _probes(self, samples: int, generator: Any) -> Iterable[Tensor]:
        if samples < 1:
            raise ValueError(f"at least one sample is needed, not {samples}")
        for _ in range(samples):
            v = self._signs(generator)
            _record.flush(_record._local.rec)
            yield v

    def _start(self, generator: Any) -> np.ndarray:
        import facula
        v = facula.randn(self.shape[0], generator=generator, dtype=self.dtype)
        return np.array(v._peek())

    def spectrum(self, steps: int = 64, samples: int = 4, generator: Any = None) -> Spectrum:
        """The density of the eigenvalues, by stochastic Lanczos quadrature.

        Lanczos' method runs `steps` products from each of `samples` random vectors; Ritz values
        are the points, squared first components of their vectors the weights (Golub and Meurant
        1994; Ghorbani, Krishnan and Xiao 2019).
        """
        points, weights = [], []
        for _ in range(samples):
            a, b, _basis = lanczos(self._product, self._start(generator), steps)
            values, vectors = ritz(a, b)
            points.append(values)
            weights.append(vectors[0] ** 2 / samples)
        x, w = np.concatenate(points), np.concatenate(weights)
        order = np.argsort(x)
        return Spectrum(x[order], w[order])

    def eigenvalues(self, k: int = 6, which: str = "LM", steps: int | None = None,
                    generator: Any = None, vectors: bool = False) -> Any:
        """`k` eigenvalues, ascending, by Lanczos' method with full reorthogonalisation.

        which     "LM": largest in magnitude, "LA": largest, "SA": smallest
        steps     products to take; max(4 k, k + 30) unless given, n at most
        vectors   return also the eigenvectors as the columns of a matrix `[n, k]`

        Of an eigenvalue that is there several times one is found.  Raises ValueError for k or
        `which` out of range.
        """
        n = self.shape[0]
        if not 1 <= k <= n:
            raise ValueError(f"k has to be between 1 and {n}, not {k}")
        if which not in ("LM", "LA", "SA"):
            raise ValueError(f"which has to be 'LM', 'LA' or 'SA', not {which!r}")
        steps = min(n, steps if steps is not None else max(4 * k, k + 30))
        a, b, basis = lanczos(self._product, self._start(generator), steps)
        values, inner = ritz(a, b)
        order = {"LM": np.argsort(-np.abs(values)), "LA": np.argsort(-values),
                 "SA": np.argsort(values)}[which][:k]
        order = order[np.argsort(values[order])]
        found = from_array(values[order].astype(self.dtype.np))
        if not vectors:
            return found
        return found, from_array((basis.T @ inner[:, order]).astype(self.dtype.np))

    def norm(self, steps: int = 30, generator: Any = None) -> Tensor:
        """The spectral norm: the largest magnitude of an eigenvalue, by Lanczos' method."""
        return self.eigenvalues(1, "LM", steps, generator).abs()[0]  # type: ignore[no-any-return]

    def solve(self, b: Vector, damping: float = 0.0, tol: float = 1e-6, max_iter: int = 250,
              preconditioner: Tensor | None = None, start: Vector | None = None) -> Any:
        """x with (A + damping I) x = b, by conjugate gradients, in the form in which b came.

        Stops when the residual is below `tol` times the norm of b, or after `max_iter`
        products.  Raises CurvatureError where the damped matrix is not positive definite.
        """
        found = self.solution(b, damping=damping, tol=tol, max_iter=max_iter,
                              preconditioner=preconditioner,
                              start=None if start is None else self.flatten(start))
        return found.x if isinstance(b, Tensor) else self.unflatten(found.x)

    def solution(self, b: Vector, **settings: Any) -> Solution:
        """`solve` with all that is known of how it went; settings of
        `curvature.conjugate_gradients`."""
        return conjugate_gradients(self._linear, self.flatten(b), numbers=self._numbers(),
                                   **settings)

    def to_scipy(self) -> Any:
        """This matrix as a `scipy.sparse.linalg.LinearOperator`, of NumPy vectors."""
        try:
            from scipy.sparse.linalg import LinearOperator
        except ImportError:
            raise ImportError("to_scipy() needs SciPy: pip install scipy") from None

        def product(v: Any) -> np.ndarray:
            flat = np.ascontiguousarray(np.asarray(v).reshape(-1), self.dtype.np)
            return np.array(self._product(flat))

        return LinearOperator(self.shape, matvec=product, rmatvec=product,
                              dtype=self.dtype.np)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.shape[0]}, dtype={self.dtype.name})"


class _Sum:
    """What multiplies by a combination."""

    extras: list[Tensor] = []

    def __init__(self, apply: Callable[[Tensor], Tensor]):
        self.product = apply

    def apply(self, flat: Tensor, numbers: Sequence[Tensor] = ()) -> Tensor:
        return self.product(flat)


class _Combined(CurvatureOperator):
    """scale * A + (another operator, or a number times the identity)."""

    def __init__(self, first: CurvatureOperator, scale: float, other: Any):
        if isinstance(other, CurvatureOperator):
            if [id(p) for p in other.params] != [id(p) for p in first.params]:
                raise ValueError("operators in different parameters cannot be added")
        elif other is not None and not isinstance(other, (int, float)):
            raise TypeError("an operator can be added to an operator, not to "
                            f"{type(other).__name__}; damped(number) adds a multiple of the "
                            "identity")
        self.first, self.scale, self.other = first, scale, other
        super().__init__(first.fn, first.params)

    def refresh(self) -> None:
        """Refresh what this is made of."""
        if self._linear is not None:
            self.first.refresh()
            if isinstance(self.other, CurvatureOperator):
                self.other.refresh()
        self._linear = _Sum(self._sum)

    def _sum(self, flat: Any) -> Tensor:
        out: Any = self.first._apply(flat)
        if self.scale != 1.0:
            out = out * self.scale
        if isinstance(self.other, CurvatureOperator):
            out = out + self.other._apply(flat)
        elif self.other is not None:
            out = out + flat * self.other
        return out                                          # type: ignore[no-any-return]


def a_loss(value: Any) -> Tensor:
    """Check that a closure returned a loss; raises ClosureError."""
    if not isinstance(value, Tensor):
        raise ClosureError(f"the closure has to return a loss, not {type(value).__name__}")
    if value.numel() != 1 or value.dtype.kind != "f":
        raise ClosureError("the loss has to be one real number, not a tensor of shape "
                           f"{list(value.shape)} and dtype {value.dtype.name}: reduce it with "
                           ".mean() or .sum()")
    if not value.requires_grad:
        raise ClosureError("the loss does not depend on the parameters: nothing that requires a "
                           "gradient went into it")
    return value
