"""Weight normalisation (Salimans and Kingma 2016): a weight as its length and its direction."""

from __future__ import annotations

from typing import Any

from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter, is_lazy
from facula.tensor import Tensor

__all__ = ["WeightNorm", "weight_norm", "remove_weight_norm"]


def norm_except_dim(v: Tensor, pow: float = 2, dim: int = 0) -> Any:
    """The norm of `v` over all dimensions but `dim`, which alone keeps its size; -1: over all."""
    import facula
    norm: Any = facula.linalg.vector_norm
    if dim == -1:
        return norm(v, pow)
    return norm(v, pow, [k for k in range(v.ndim) if k != dim], True)


def scaled(v: Tensor, g: Tensor, dim: int) -> Any:
    """`v` brought to the lengths `g`, which `norm_except_dim` gives back."""
    value: Any = v
    return value * (g / norm_except_dim(v, 2, dim))


class WeightNorm:
    """The hook that computes `name` from `name_g` and `name_v` before every forward."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Any:
        """The weight from its parts."""
        return scaled(getattr(module, f"{self.name}_v"), getattr(module, f"{self.name}_g"),
                      self.dim)

    @staticmethod
    def apply(module: Module, name: str, dim: int | None) -> WeightNorm:
        """Split the parameter and register the hook."""
        if any(isinstance(h, WeightNorm) and h.name == name
               for h in module._forward_pre_hooks.values()):
            raise RuntimeError("Cannot register two weight_norm hooks on the same parameter "
                               f"{name}")
        hook = WeightNorm(name, dim)
        weight = getattr(module, name)
        if is_lazy(weight):
            raise ValueError("The module passed to `WeightNorm` can't have uninitialized "
                             "parameters. Make sure to run the dummy forward before applying "
                             "weight normalization")
        del module._parameters[name]
        module.register_parameter(f"{name}_g", Parameter(
            norm_except_dim(weight.detach(), 2, hook.dim)))
        module.register_parameter(f"{name}_v", Parameter(weight.detach()))
        setattr(module, name, hook.compute_weight(module))
        module.register_forward_pre_hook(hook)
        return hook

    def remove(self, module: Module) -> None:
        """Make the weight an ordinary parameter again."""
        weight = self.compute_weight(module).detach()
        delattr(module, self.name)
        del module._parameters[f"{self.name}_g"]
        del module._parameters[f"{self.name}_v"]
        setattr(module, self.name, Parameter(weight))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Split the parameter `name` into its length `name_g` and direction `name_v`.

    The length is that of each slice along `dim`, or of the whole with None.  The older form of
    `parametrizations.weight_norm`, under whose names old checkpoints are.  Returns the module.
    """
    WeightNorm.apply(module, name, dim)
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Undo `weight_norm`; ValueError where it was not applied.  Returns the module."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, WeightNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"weight_norm of '{name}' not found in {module}")
