"""Calling a module with other parameters than its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from facula.nn.modules.module import Module
from facula.tensor import Tensor

__all__ = ["functional_call"]


def _names(module: Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False))}


def _tied(module: Module, given: dict[str, Any]) -> dict[str, Any]:
    """`given`, and the same value for the other names of each tensor in it."""
    groups: dict[int, list[str]] = {}
    for name, tensor in _names(module).items():
        groups.setdefault(id(tensor), []).append(name)
    out = dict(given)
    for names in groups.values():
        values = {id(given[name]): given[name] for name in names if name in given}
        if len(values) > 1:
            raise ValueError(f"functional_call got multiple values for keys {sorted(names)}, "
                             "which are tied. Consider using tie_weights=False")
        for value in values.values():
            out.update(dict.fromkeys(names, value))
    return out


def _swap(module: Module, values: dict[str, Any]) -> dict[str, Any]:
    """Put the values in their places; returns what was there."""
    before = {}
    for path, value in values.items():
        owner, _, name = path.rpartition(".")
        place = module.get_submodule(owner)
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{value} is not an instance of facula.Tensor")
        table: Any = place._parameters if name in place._parameters else \
            place._buffers if name in place._buffers else None
        if table is None:
            before[path] = getattr(place, name)
            setattr(place, name, value)
        else:
            before[path] = table[name]
            table[name] = value
    return before


@contextmanager
def swapped(module: Module, values: dict[str, Any], tie_weights: bool = True,
            strict: bool = False) -> Iterator[None]:
    """Within this block the module has these parameters and buffers; see `functional_call`."""
    new = _tied(module, values) if tie_weights else dict(values)
    if strict:
        have = _names(module)
        errors = [f"{what} key(s): {', '.join(map(repr, keys))}." for what, keys in (
            ("Unexpected", [k for k in new if k not in have]),
            ("Missing", [k for k in have if k not in new])) if keys]
        if errors:
            raise RuntimeError(f"Error(s) in reparametrizing for {module._get_name()}:\n\t"
                               + "\n\t".join(errors))
    before: dict[str, Any] = {}
    try:
        for path, value in new.items():
            before |= _swap(module, {path: value})
        yield
    finally:
        after = _swap(module, dict(reversed(before.items())))
        values.update({k: after[k] for k in values if k in after})


def functional_call(module: Module, parameters_and_buffers: dict[str, Any], args: Any = None,
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
                    strict: bool = False) -> Any:
    """`module(*args, **kwargs)` with tensors of the dictionary in the place of its own.

    parameters_and_buffers  by dotted name; what is left out stays.  A buffer that the call
                            replaces is put back into the dictionary
    args                    a tuple, or one argument
    tie_weights             a tensor that the module has under two names is replaced under both
    strict                  RuntimeError unless every parameter and buffer is given, and no other
    """
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with swapped(module, parameters_and_buffers, tie_weights, strict):
        return module(*args, **(kwargs or {}))
