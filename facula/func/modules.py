"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.ops.shape import stack
from facula.tensor import Tensor

__all__ = ["functional_call", "stack_module_state"]

def functional_call(module: Any, parameter_and_buffer_dicts: Any, args: Any = None,
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
                    strict: bool = False) -> Any:
    """`module(*args, **kwargs)` with other tensors in place of its parameters and buffers.

    `parameter_and_buffer_dicts` is a dict from the names of `named_parameters()` and
    `named_buffers()` to tensors, or several such dicts; the module's own stand in for those not
    named, and are in their places again afterwards.  What the module writes into a buffer it was
    given is found in the dict.  `args` is a tuple, or the only argument.

    With `tie_weights`, a tensor that the module has under several names is replaced under all of
    them.  ValueError where one is given two values, or where dicts repeat a name; RuntimeError
    with `strict` where names are missing or unknown.
    """
    from facula.nn.utils import stateless
    return stateless.functional_call(module, _merged(parameter_and_buffer_dicts), args, kwargs,
                                     tie_weights=tie_weights, strict=strict)


def _merged(dicts: Any) -> dict[str, Tensor]:
    if isinstance(dicts, dict):
        return dicts
    if not isinstance(dicts, Sequence) or isinstance(dicts, str):
        raise ValueError("Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of "
                         f"dicts, but got {type(dicts)}")
    if not all(isinstance(d, dict) for d in dicts):
        raise ValueError("Expected all elements of parameter_and_buffer_dicts to be dictionaries")
    merged: dict[str, Tensor] = {}
    twice = [k for n, d in enumerate(dicts) for k in d if any(k in e for e in dicts[:n])]
    if twice:
        raise ValueError(f"{twice} appeared in multiple dictionaries; behavior of functional call "
                         "is ambiguous")
    for d in dicts:
        merged.update(d)
    return merged


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters and the buffers of several equal modules, each stacked: [len(models), ...].

    With `vmap` over them and `functional_call` an ensemble is one batch.  Parameters are leaves
    that require a gradient where the modules' do.  RuntimeError for modules that differ in class
    or mode.
    """
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to have the same "
                           "training/eval mode.")
    if len({type(m) for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    every = [(dict(m.named_parameters()), dict(m.named_buffers())) for m in models]
    return (_stacked([p for p, _ in every]), _stacked([b for _, b in every]))


def _stacked(dicts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: _leaf([d[name] for d in dicts], name) for name in dicts[0]}


def _leaf(tensors: list[Tensor], name: str) -> Tensor:
    wants = {t.requires_grad for t in tensors}
    if len(wants) > 1:
        raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
    result: Tensor = stack([t.detach() for t in tensors])
    return result.requires_grad_() if wants.pop() else result
