"""Spectral normalisation (Miyato et al. 2018): a weight divided by its largest singular value."""

from __future__ import annotations

from typing import Any

from facula.nn import functional as F
from facula.nn.init import no_grad, normal_
from facula.nn.modules.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from facula.nn.modules.make import empty
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter, is_lazy

__all__ = ["SpectralNorm", "spectral_norm", "remove_spectral_norm"]


def outputs_of(module: Module) -> int:
    """The dimension of a module's weight that numbers its outputs."""
    transposed = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
    return 1 if isinstance(module, transposed) else 0


def as_matrix(weight: Any, dim: int) -> Any:
    """`weight` with a row for each element along `dim`."""
    if dim:
        weight = weight.permute(dim, *(d for d in range(weight.ndim) if d != dim))
    return weight.flatten(1)


def direction(like: Any, size: int, eps: float) -> Any:
    """A vector of length 1 and random direction."""
    return F.normalize(normal_(empty((size,), like.dtype)), dim=0, eps=eps)


def checked(n_power_iterations: int) -> int:
    """Raise ValueError unless it is positive."""
    if n_power_iterations <= 0:
        raise ValueError("Expected n_power_iterations to be positive, but got "
                         f"n_power_iterations={n_power_iterations}")
    return n_power_iterations


class SpectralNorm:
    """The hook that computes `name` from `name_orig` before every forward.

    `name_u` and `name_v` are singular vectors, which a power iteration improves while training.
    """

    def __init__(self, name: str = "weight", n_power_iterations: int = 1, dim: int = 0,
                 eps: float = 1e-12) -> None:
        self.name = name
        self.dim = dim
        self.n_power_iterations = checked(n_power_iterations)
        self.eps = eps

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Any:
        """The weight over its largest singular value, as the vectors have it."""
        import facula
        weight, u, v = (getattr(module, f"{self.name}_{part}") for part in ("orig", "u", "v"))
        matrix = as_matrix(weight, self.dim)
        if do_power_iteration:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(facula.mv(matrix.t(), u), dim=0, eps=self.eps))
                    u.copy_(F.normalize(facula.mv(matrix, v), dim=0, eps=self.eps))
                # A second forward may overwrite them before this one is differentiated.
                u, v = u.clone(), v.clone()
        return weight / facula.dot(u, facula.mv(matrix, v))

    @staticmethod
    def apply(module: Module, name: str, n_power_iterations: int, dim: int,
              eps: float) -> SpectralNorm:
        """Move the parameter to `name_orig` and register the hook."""
        if any(isinstance(h, SpectralNorm) and h.name == name
               for h in module._forward_pre_hooks.values()):
            raise RuntimeError("Cannot register two spectral_norm hooks on the same parameter "
                               f"{name}")
        hook = SpectralNorm(name, n_power_iterations, dim, eps)
        weight = module._parameters[name]
        if weight is None:
            raise ValueError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
        if is_lazy(weight):
            raise ValueError("The module passed to `SpectralNorm` can't have uninitialized "
                             "parameters. Make sure to run the dummy forward before applying "
                             "spectral normalization")
        rows, columns = as_matrix(weight.detach(), dim).shape
        delattr(module, name)
        module.register_parameter(f"{name}_orig", weight)
        setattr(module, name, weight.detach())      # not the parameter, which would be added
        module.register_buffer(f"{name}_u", direction(weight, rows, eps))
        module.register_buffer(f"{name}_v", direction(weight, columns, eps))
        module.register_forward_pre_hook(hook)
        return hook

    def remove(self, module: Module) -> None:
        """Make the weight an ordinary parameter again."""
        with no_grad():
            weight = self.compute_weight(module, False)
        for name in (self.name, *(f"{self.name}_{part}" for part in ("u", "v", "orig"))):
            delattr(module, name)
        module.register_parameter(self.name, Parameter(weight.detach()))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, module.training))


def spectral_norm(module: Any, name: str = "weight", n_power_iterations: int = 1,
                  eps: float = 1e-12, dim: int | None = None) -> Any:
    """Divide the parameter `name` by its largest singular value in every forward.

    The weight is taken as a matrix with a row for each element along `dim`: 0, or 1 for
    transposed convolutions.  While training a power iteration follows the singular vectors.
    The older form of `parametrizations.spectral_norm`.  Returns the module.
    """
    SpectralNorm.apply(module, name, n_power_iterations, outputs_of(module) if dim is None
                       else dim, eps)
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Undo `spectral_norm`; ValueError where it was not applied.  Returns the module."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"spectral_norm of '{name}' not found in {module}")
