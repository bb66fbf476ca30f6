"""Ready-made parametrizations: orthogonal matrices, weight and spectral normalisation."""

from __future__ import annotations

from typing import Any

from facula.nn import functional as F
from facula.nn.init import no_grad
from facula.nn.modules.module import Module
from facula.nn.utils import parametrize
from facula.nn.utils.spectral_norm import as_matrix, checked, direction, outputs_of
from facula.nn.utils.weight_norm import norm_except_dim, scaled
from facula.tensor import Tensor

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

_MAPS = ("matrix_exp", "cayley", "householder")


def _transposed(x: Any) -> Any:
    return x.transpose(-2, -1)


def _with_diagonal(x: Any, value: Any) -> Any:
    """`x` whose diagonal is `value`."""
    import facula
    rows, columns = x.shape[-2:]
    on = facula.eye(rows, columns, dtype=facula.bool)
    # value[j] in column j: only the diagonal of it is used
    wide = facula.zeros(columns, dtype=x.dtype).expand(*x.shape[:-2], columns).clone()
    wide[..., :value.shape[-1]] = value
    return facula.where(on, wide.unsqueeze(-2), x)


def _orthogonalised(x: Any) -> Any:
    """The orthogonal factor of x = Q R, R with a positive diagonal."""
    import facula
    q, r = facula.linalg.qr(x)
    d = r.diagonal(dim1=-2, dim2=-1)
    return q * (d / d.abs()).unsqueeze(-2)


def _is_orthogonal(q: Any) -> bool:
    import facula
    n, k = q.shape[-2:]
    one = facula.eye(k, dtype=q.dtype)
    eps = 10 * n * facula.finfo(q.dtype).eps
    error = (_transposed(q).conj() @ q - one).abs()
    return bool((error <= eps).all().item())


class _Orthogonal(Module):
    """A (batch of) matrices with orthonormal columns, or rows where those are fewer.

    Lezcano-Casado, "Trivializations for gradient-based optimization on manifolds" (2019).
    """

    base: Any

    def __init__(self, weight: Tensor, orthogonal_map: str, *,
                 use_trivialization: bool = True) -> None:
        super().__init__()
        if weight.dtype.is_complex and orthogonal_map == "householder":
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        self._has_base = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Any) -> Any:
        import facula
        wide = X.shape[-2] < X.shape[-1]
        x = _transposed(X) if wide else X
        n, k = x.shape[-2:]
        if self.orthogonal_map == "householder":
            a = x.tril(-1)
            tau = 2.0 / (1.0 + (a * a).sum(-2))
            # The diagonal holds signs, which are not trained.
            signs = x.detach().diagonal(dim1=-2, dim2=-1).trunc()
            q = facula.linalg.householder_product(a, tau) * signs.unsqueeze(-2)
        else:
            low = x.tril()
            if n != k:
                blank = facula.zeros(*x.shape[:-2], n, n - k, dtype=x.dtype)
                low = facula.cat([low, blank], -1)
            skew = low - _transposed(low).conj()
            if self.orthogonal_map == "matrix_exp":
                q = facula.matrix_exp(skew)
            else:
                one = facula.eye(n, dtype=x.dtype)
                q = facula.linalg.solve(one - 0.5 * skew, one + 0.5 * skew)
            q = q[..., :k] if n != k else q
        if self._has_base:
            q = self.base @ q
        return _transposed(q) if wide else q

    def right_inverse(self, Q: Any) -> Any:
        """What to start from for the orthogonal matrix Q, or the one nearest to it by QR."""
        import facula
        if Q.shape != self.shape:
            raise ValueError(f"Expected a matrix or batch of matrices of shape "
                             f"{list(self.shape)}. Got a tensor of shape {list(Q.shape)}.")
        wide = Q.shape[-2] < Q.shape[-1]
        with no_grad():
            q = _transposed(Q) if wide else Q
            n, k = q.shape[-2:]
            if not self._has_base:
                if self.orthogonal_map != "householder":
                    raise NotImplementedError(
                        "It is not possible to assign to the matrix exponential or the Cayley "
                        "parametrizations when use_trivialization=False.")
                a, tau = facula.geqrf(q)
                signs = a.diagonal(dim1=-2, dim2=-1).sign()
                # A reflection that LAPACK left out is made all the same: by a change of sign.
                a = _with_diagonal(a, facula.where(tau == 0, -signs, signs))
                return _transposed(a) if wide else a
            if n != k:
                q = _orthogonalised(facula.cat([q, facula.randn(*q.shape[:-1], n - k,
                                                                dtype=q.dtype)], -1))
            else:
                q = q.clone() if _is_orthogonal(q) else _orthogonalised(q)
            self.base = q
            # With -1 on the diagonal the product of reflections is the identity, too.
            start = facula.zeros(*self.shape, dtype=q.dtype)
            return _with_diagonal(start, facula.full((min(n, k),), -1, dtype=q.dtype))


def _tensor(module: Module, name: str) -> Tensor:
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    return weight


def orthogonal(module: Any, name: str = "weight", orthogonal_map: str | None = None, *,
               use_trivialization: bool = True) -> Any:
    """Keep a matrix of the module (or a batch of them) orthogonal; returns the module.

    orthogonal_map      'matrix_exp', 'cayley' or 'householder': how an orthogonal matrix is
                        made of the free one; by default the first for square or complex
                        matrices and the last for others
    use_trivialization  multiply by a fixed orthogonal matrix, the one that the parameter has
                        when this is called, so that it can start from and be set to anything

    Columns are orthonormal, or rows where those are fewer.  Raises ValueError for vectors.
    """
    weight = _tensor(module, name)
    if weight.ndim < 2:
        raise ValueError("Expected a matrix or batch of matrices. Got a tensor of "
                         f"{weight.ndim} dimensions.")
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.dtype.is_complex else "householder"
    if orthogonal_map not in _MAPS:
        raise ValueError('orthogonal_map has to be one of "matrix_exp", "cayley", "householder". '
                         f"Got: {orthogonal_map}")
    part = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    return parametrize.register_parametrization(module, name, part, unsafe=True)


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Any:
        return scaled(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> Any:
        """The lengths and the weight itself as the direction."""
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Split the weight into its length (`original0`) and direction (`original1`).

    The length is that of each slice along `dim`, or of the whole with None (Salimans and Kingma
    2016).  State dictionaries of the older `nn.utils.weight_norm` load as well.  Returns the
    module.
    """
    parametrize.register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def rename(state_dict: Any, prefix: str, *_: Any) -> None:
        old = [f"{prefix}{name}_g", f"{prefix}{name}_v"]
        if all(key in state_dict for key in old):
            for k, key in enumerate(old):
                state_dict[f"{prefix}parametrizations.{name}.original{k}"] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(rename)
    return module


class _SpectralNorm(Module):
    _u: Any
    _v: Any

    def __init__(self, weight: Any, n_power_iterations: int = 1, dim: int = 0,
                 eps: float = 1e-12) -> None:
        super().__init__()
        n = weight.ndim
        if not -n <= dim < n:
            raise IndexError("Dimension out of range (expected to be in range of "
                             f"[-{n}, {n - 1}] but got {dim})")
        self.dim = dim % n
        self.eps = eps
        self.n_power_iterations = checked(n_power_iterations)
        if n > 1:
            with no_grad():
                matrix = as_matrix(weight.detach(), self.dim)
                for name, size in zip(("_u", "_v"), matrix.shape):
                    self.register_buffer(name, direction(weight, size, eps))
                self._iterate(matrix, 15)

    def _iterate(self, matrix: Any, times: int) -> None:
        """Bring the vectors nearer to the singular ones, in place."""
        import facula
        with no_grad():
            for _ in range(times):
                self._u.copy_(F.normalize(facula.mv(matrix, self._v), dim=0, eps=self.eps))
                back = facula.mv(_transposed(matrix).conj(), self._u)
                self._v.copy_(F.normalize(back, dim=0, eps=self.eps))

    def forward(self, weight: Any) -> Any:
        import facula
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        # A second forward may overwrite them before this one is differentiated.
        u, v = self._u.clone(), self._v.clone()
        return weight / facula.vdot(u, facula.mv(matrix, v))

    def right_inverse(self, value: Any) -> Any:
        """The value itself."""
        return value


def spectral_norm(module: Any, name: str = "weight", n_power_iterations: int = 1,
                  eps: float = 1e-12, dim: int | None = None) -> Any:
    """Divide the weight by its largest singular value (Miyato et al. 2018); returns the module.

    The weight is taken as a matrix with a row for each element along `dim`: 0, or 1 for
    transposed convolutions.  While training, each use of it makes `n_power_iterations` steps of
    the power iteration that follows the singular vectors.  A vector is divided by its length.
    """
    weight = _tensor(module, name)
    part = _SpectralNorm(weight, n_power_iterations,
                         outputs_of(module) if dim is None else dim, eps)
    return parametrize.register_parametrization(module, name, part)
