"""Pruning: masks over parameters, which a hook applies before every forward.

The parameter moves to `name_orig`, its mask is the buffer `name_mask`, and `name` is their
product.
"""

from __future__ import annotations

import abc
import numbers
from collections.abc import Iterable, Iterator
from typing import Any

from facula.nn.init import no_grad
from facula.nn.modules.module import Module
from facula.tensor import Tensor

__all__ = ["BasePruningMethod", "PruningContainer", "Identity", "RandomUnstructured",
           "L1Unstructured", "RandomStructured", "LnStructured", "CustomFromMask", "identity",
           "random_unstructured", "l1_unstructured", "random_structured", "ln_structured",
           "global_unstructured", "custom_from_mask", "remove", "is_pruned"]


class BasePruningMethod(abc.ABC):
    """A way to choose what is pruned; a subclass defines `compute_mask` and `PRUNING_TYPE`.

    'unstructured': what earlier pruning left is given to it as a vector; 'structured': as the
    slices along `dim` of which something is left; 'global': as it is.
    """

    PRUNING_TYPE: str
    _tensor_name: Any = None

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abc.abstractmethod
    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask of `t`: ones where it is kept, and not more than in `default_mask`."""

    def apply_mask(self, module: Module) -> Any:
        """The parameter with what is pruned set to 0."""
        if self._tensor_name is None:
            raise AssertionError(f"Module {module} has to be pruned")
        original = getattr(module, f"{self._tensor_name}_orig")
        return getattr(module, f"{self._tensor_name}_mask").to(original.dtype) * original

    @classmethod
    def apply(cls, module: Module, name: str, *args: Any, importance_scores: Any = None,
              **kwargs: Any) -> Any:
        """Prune `module.name`, on top of earlier pruning; the other arguments are the class's.

        `importance_scores` stand for the parameter's own values in the choice.
        """
        earlier = [(key, hook) for key, hook in module._forward_pre_hooks.items()
                   if isinstance(hook, BasePruningMethod) and hook._tensor_name == name]
        if len(earlier) > 1:
            raise AssertionError(f"Avoid adding multiple pruning hooks to the same tensor {name} "
                                 f"of module {module}. Use a PruningContainer.")
        method: Any = cls(*args, **kwargs)
        method._tensor_name = name
        value = getattr(module, name)
        scores = value if importance_scores is None else importance_scores
        if scores.shape != value.shape:
            raise AssertionError("importance_scores should have the same shape as parameter "
                                 f"{name} of {module}, got {list(scores.shape)} vs "
                                 f"{list(value.shape)}")
        import facula
        with no_grad():
            scores = scores.detach()
            if not earlier:
                mask = method.compute_mask(scores, default_mask=facula.ones_like(scores))
                module.register_parameter(f"{name}_orig", value)
                del module._parameters[name]
            else:
                key, old = earlier[0]
                container = old if isinstance(old, PruningContainer) else PruningContainer(old)
                container.add_pruning_method(method)
                method = container
                mask = method.compute_mask(scores, default_mask=getattr(
                    module, f"{name}_mask").detach().clone())
                del module._forward_pre_hooks[key]
            module.register_buffer(f"{name}_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: Any, default_mask: Any = None, importance_scores: Any = None) -> Any:
        """`t` pruned, without a module."""
        import facula
        scores = t if importance_scores is None else importance_scores
        if scores.shape != t.shape:
            raise AssertionError("importance_scores should have the same shape as tensor t, got "
                                 f"{list(scores.shape)} vs {list(t.shape)}")
        with no_grad():
            mask = self.compute_mask(scores.detach(), default_mask=facula.ones_like(t)
                                     if default_mask is None else default_mask)
        return t * mask

    def remove(self, module: Module) -> None:
        """Make the pruned parameter an ordinary one, with zeros where it was pruned."""
        name = self._tensor_name
        if name is None:
            raise AssertionError(f"Module {module} has to be pruned before pruning can be removed")
        weight = self.apply_mask(module)
        if hasattr(module, name):
            delattr(module, name)
        original: Any = module._parameters[f"{name}_orig"]
        original.data = weight.detach()
        del module._parameters[f"{name}_orig"]
        del module._buffers[f"{name}_mask"]
        setattr(module, name, original)


class PruningContainer(BasePruningMethod):
    """Several methods one after the other, each of what the one before left."""

    def __init__(self, *args: Any) -> None:
        self._pruning_methods: tuple[Any, ...] = ()
        if len(args) == 1:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Add a method of the same tensor: TypeError for another thing, ValueError for another."""
        if method is not None:
            if not isinstance(method, BasePruningMethod):
                raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
            if method._tensor_name != self._tensor_name:
                raise ValueError("Can only add pruning methods acting on the parameter named "
                                 f"'{self._tensor_name}' to PruningContainer {self}. Found "
                                 f"'{method._tensor_name}'")
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pruning_methods)

    def __getitem__(self, idx: Any) -> Any:
        return self._pruning_methods[idx]

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """What the newest method leaves of the part of `t` that `default_mask` keeps."""
        method = self._pruning_methods[-1]
        if method.PRUNING_TYPE == "unstructured":
            where: Any = default_mask == 1
        elif method.PRUNING_TYPE == "structured":
            if not hasattr(method, "dim"):
                raise AttributeError('Pruning methods of PRUNING_TYPE "structured" need to have '
                                     "the attribute `dim` defined.")
            _check_dim(t, method.dim)
            dim = method.dim % t.ndim
            others = [d for d in range(t.ndim) if d != dim]
            kept = default_mask.sum(others) != 0
            where = (slice(None),) * dim + (kept.nonzero().squeeze(1),)
        elif method.PRUNING_TYPE == "global":
            where = (slice(None),) * t.ndim
        else:
            raise ValueError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
        mask = default_mask.to(t.dtype).clone()
        part = method.compute_mask(t[where], default_mask=default_mask[where])
        mask[where] = part.to(mask.dtype)
        return mask


class Identity(BasePruningMethod):
    """Prunes nothing, but makes the mask."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        return default_mask

    @classmethod
    def apply(cls, module: Module, name: str) -> Any:       # type: ignore[override]
        """Give `module.name` a mask of ones."""
        return super().apply(module, name)


def _cut(mask: Any, flat: Any) -> Any:
    """A copy of `mask` with zeros at these places of it flattened."""
    out = mask.clone().reshape(-1)
    out[flat] = 0
    return out.reshape(mask.shape)


class _ByAmount(BasePruningMethod):
    """A method that prunes a number of elements or slices, or a part of them."""

    def __init__(self, amount: Any) -> None:
        if not isinstance(amount, numbers.Real):
            raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
        if amount < 0 or (not isinstance(amount, numbers.Integral) and amount > 1):
            raise ValueError(f"amount={amount} should either be a float in the range [0, 1] or a "
                             "non-negative integer")
        self.amount = amount

    def _count(self, size: int) -> int:
        count = self.amount if isinstance(self.amount, numbers.Integral) \
            else round(float(self.amount) * size)
        if count > size:
            raise ValueError(f"amount={count} should be smaller than the number of parameters to "
                             f"prune={size}")
        return int(count)


class RandomUnstructured(_ByAmount):
    """Prunes elements at random: `amount` of them, or that part of all."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        import facula
        count = self._count(t.numel())
        return _cut(default_mask, facula.randperm(t.numel())[:count])

    @classmethod
    def apply(cls, module: Module, name: str, amount: Any) -> Any:  # type: ignore[override]
        """Prune `amount` elements of `module.name`."""
        return super().apply(module, name, amount=amount)


class L1Unstructured(_ByAmount):
    """Prunes the elements of smallest size: `amount` of them, or that part of all."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        count = self._count(t.numel())
        return _cut(default_mask, t.abs().reshape(-1).topk(count, largest=False).indices)

    @classmethod
    def apply(cls, module: Module, name: str, amount: Any,          # type: ignore[override]
              importance_scores: Any = None) -> Any:
        """Prune `amount` elements of `module.name`."""
        return super().apply(module, name, amount=amount, importance_scores=importance_scores)


def _check_dim(t: Any, dim: int) -> None:
    if not -t.ndim <= dim < t.ndim:
        raise IndexError(f"Invalid index {dim} for tensor of size {list(t.shape)}")


class _Structured(_ByAmount):
    PRUNING_TYPE = "structured"

    def __init__(self, amount: Any, dim: int = -1) -> None:
        super().__init__(amount)
        self.dim = dim

    def _size(self, t: Any) -> int:
        """The number of slices."""
        if t.ndim <= 1:
            raise ValueError("Structured pruning can only be applied to multidimensional "
                             f"tensors. Found tensor of shape {list(t.shape)} with {t.ndim} dims")
        _check_dim(t, self.dim)
        size: int = t.shape[self.dim]
        return size

    def _masked(self, t: Any, default_mask: Any, slices: Any) -> Any:
        """`default_mask` with zeros in these slices."""
        import facula
        shape = [1] * t.ndim
        shape[self.dim] = -1
        kept = facula.ones(t.shape[self.dim], dtype=default_mask.dtype)
        kept[slices] = 0
        return default_mask * kept.reshape(shape)


class RandomStructured(_Structured):
    """Prunes slices along `dim` at random: `amount` of them, or that part of all."""

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        import facula
        size = self._size(t)
        return self._masked(t, default_mask, facula.randperm(size)[:self._count(size)])

    @classmethod
    def apply(cls, module: Module, name: str, amount: Any,          # type: ignore[override]
              dim: int = -1) -> Any:
        """Prune `amount` slices of `module.name`."""
        return super().apply(module, name, amount=amount, dim=dim)


class LnStructured(_Structured):
    """Prunes the slices along `dim` of smallest n-norm: `amount` of them, or that part of all."""

    def __init__(self, amount: Any, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        size = self._size(t)
        count = self._count(size)
        if not count:
            return default_mask
        others = [d for d in range(t.ndim) if d != self.dim % t.ndim]
        norms = t.norm(p=self.n, dim=others)
        kept = norms.topk(size - count, largest=True).indices
        import facula
        out = facula.ones(size, dtype=facula.bool)
        out[kept] = False
        return self._masked(t, default_mask, out.nonzero().squeeze(1))

    @classmethod
    def apply(cls, module: Module, name: str, amount: Any, n: Any,  # type: ignore[override]
              dim: int, importance_scores: Any = None) -> Any:
        """Prune `amount` slices of `module.name`."""
        return super().apply(module, name, amount=amount, n=n, dim=dim,
                             importance_scores=importance_scores)


class CustomFromMask(BasePruningMethod):
    """Prunes where `mask` is 0."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        if default_mask.shape != self.mask.shape:
            raise AssertionError(f"default_mask shape {list(default_mask.shape)} must match "
                                 f"self.mask shape {list(self.mask.shape)}")
        return default_mask * self.mask.to(default_mask.dtype)

    @classmethod
    def apply(cls, module: Module, name: str, mask: Any) -> Any:    # type: ignore[override]
        """Prune `module.name` where `mask` is 0."""
        return super().apply(module, name, mask=mask)


def identity(module: Any, name: str) -> Any:
    """Give the parameter `name` a mask of ones; returns the module."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Any, name: str, amount: Any) -> Any:
    """Prune elements of the parameter `name` at random; returns the module.

    `amount` is how many, or a float that says which part of those that are left.
    """
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Any, name: str, amount: Any, importance_scores: Any = None) -> Any:
    """Prune the smallest elements of the parameter `name`; returns the module.

    `amount` is how many, or a float that says which part of those that are left;
    `importance_scores`, a tensor of the same shape, is looked at in the parameter's place.
    """
    L1Unstructured.apply(module, name, amount, importance_scores)
    return module


def random_structured(module: Any, name: str, amount: Any, dim: int) -> Any:
    """Prune slices along `dim` of the parameter `name` at random; returns the module."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module: Any, name: str, amount: Any, n: Any, dim: int,
                  importance_scores: Any = None) -> Any:
    """Prune the slices along `dim` of the parameter `name` whose n-norm is smallest.

    Returns the module.  See `l1_unstructured` for the other arguments.
    """
    LnStructured.apply(module, name, amount, n, dim, importance_scores)
    return module


def global_unstructured(parameters: Any, pruning_method: Any, importance_scores: Any = None,
                        **kwargs: Any) -> None:
    """Prune several parameters, pairs (module, name), as if they were one.

    pruning_method     an unstructured class, such as `L1Unstructured`; `kwargs` are its own
    importance_scores  a dict from pairs to tensors, looked at in the parameters' place

    Raises TypeError for another kind of method or argument.
    """
    import facula
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise TypeError("global_unstructured(): importance_scores must be of type dict")
    pairs = list(parameters)
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError('Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. '
                        f"Found method {pruning_method} of type {method.PRUNING_TYPE}")

    def joined(values: list[Any]) -> Any:
        return facula.cat([v.detach().reshape(-1) for v in values])

    tensors: list[Any] = [getattr(module, name) for module, name in pairs]
    method._tensor_name = "all"
    container = PruningContainer(method)
    with no_grad():
        mask = container.compute_mask(
            joined([scores.get(pair, t) for pair, t in zip(pairs, tensors)]),
            joined([getattr(module, f"{name}_mask", facula.ones_like(t))
                    for (module, name), t in zip(pairs, tensors)]))
    start = 0
    for (module, name), t in zip(pairs, tensors):
        custom_from_mask(module, name, mask[start:start + t.numel()].reshape(t.shape))
        start += t.numel()


def custom_from_mask(module: Any, name: str, mask: Tensor) -> Any:
    """Prune the parameter `name` where `mask` is 0; returns the module."""
    CustomFromMask.apply(module, name, mask)
    return module


def remove(module: Any, name: str) -> Any:
    """Make the pruned parameter an ordinary one with zeros in it; returns the module.

    Raises ValueError where it is not pruned.
    """
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"Parameter '{name}' of module {module} has to be pruned before pruning can "
                     "be removed")


def is_pruned(module: Module) -> bool:
    """Whether a parameter of the module, or of one inside it, is pruned."""
    return any(isinstance(hook, BasePruningMethod) for part in module.modules()
               for hook in part._forward_pre_hooks.values())
