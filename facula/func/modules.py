"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from facula.ops.shape import stack
from facula.tensor import Tensor

__all__ = ["functional_call", "stack_module_state"]

_MISSING: Any = object()


def functional_call(module: Any, parameter_and_buffer_dicts: Any, args: Any = None,
                    kwargs: Mapping[str, Any] | None = None, *, tie_weights: bool = True,
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
    given = _merged(parameter_and_buffer_dicts)
    if not isinstance(args, tuple):
        args = () if args is None else (args,)
    with _replaced(module, given, tie_weights, strict):
        return module(*args, **(kwargs or {}))


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


def _own(module: Any) -> dict[str, Tensor]:
    """All tensors of a module by name, those it has twice under both names."""
    found = dict(module.named_parameters(remove_duplicate=False))
    found.update(module.named_buffers(remove_duplicate=False))
    return found


def _tied(module: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """`given` with the other names of what the module has under several."""
    names: dict[int, list[str]] = {}
    for name, t in _own(module).items():
        names.setdefault(id(t), []).append(name)
    out = dict(given)
    for group in names.values():
        if len(group) < 2:
            continue
        values = {id(given[n]): given[n] for n in group if n in given}
        if len(values) > 1:
            raise ValueError(f"functional_call got multiple values for keys {sorted(group)}, "
                             "which are tied. Consider using tie_weights=False")
        for value in values.values():
            out.update(dict.fromkeys(group, value))
    return out


def _check(module: Any, given: dict[str, Tensor]) -> None:
    own = _own(module)
    wrong = []
    unexpected = [n for n in given if n not in own]
    missing = [n for n in own if n not in given]
    if unexpected:
        wrong.append(f"Unexpected key(s): {', '.join(map(repr, unexpected))}.")
    if missing:
        wrong.append(f"Missing key(s): {', '.join(map(repr, missing))}.")
    if wrong:
        raise RuntimeError(f"Error(s) in reparametrizing for {type(module).__name__}:\n\t"
                           + "\n\t".join(wrong))


def _swap(module: Any, name: str, value: Any) -> Any:
    """Put a tensor, or nothing, under a dotted name; returns what was there."""
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    for table in (owner._parameters, owner._buffers):
        if last in table:
            before = table[last]
            table[last] = value
            return before
    before = owner.__dict__.get(last, _MISSING)
    if value is _MISSING:
        owner.__dict__.pop(last, None)
    else:
        owner.__dict__[last] = value
    return before


@contextmanager
def _replaced(module: Any, given: dict[str, Tensor], tie_weights: bool, strict: bool
              ) -> Iterator[None]:
    for name, t in given.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"functional_call: {name!r} is to be a Tensor, not "
                            f"{type(t).__name__}")
    every = _tied(module, given) if tie_weights else given
    if strict:
        _check(module, every)
    before: list[tuple[str, Any]] = []
    try:
        for name, t in every.items():
            before.append((name, _swap(module, name, t)))
        yield
    finally:
        for name, value in reversed(before):
            now = _swap(module, name, value)
            if name in given:
                given[name] = now               # a buffer may have been assigned anew


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
