"""State dictionaries: saving a module's tensors by name, and loading them back."""

from __future__ import annotations

import itertools
from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from typing import Any

from facula.dtype import DType
from facula.graph.record import recorder, settle
from facula.nn.parameter import Parameter, is_lazy
from facula.tensor import Tensor

__all__ = ["HOOKS", "state_dict", "load_state_dict", "save_own", "load_own", "parse_to",
           "IncompatibleKeys"]

HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
         "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks",
         "_backward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks",
         "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
"""The tables of hooks that every module has."""

_EXTRA = "_extra_state"


class IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What `load_state_dict` could not match: two lists of names."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


class StateDict(OrderedDict[str, Any]):
    """An OrderedDict that carries the versions of the modules it came from."""

    _metadata: dict[str, Any]


def _has_extra_state(module: Any) -> bool:
    from facula.nn.modules.module import Module
    return type(module).get_extra_state is not Module.get_extra_state


def save_own(module: Any, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Put the module's own tensors, not its children's, into `destination`."""
    for name, param in module._parameters.items():
        if param is not None:
            destination[prefix + name] = param if keep_vars else param.detach()
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            destination[prefix + name] = buffer if keep_vars else buffer.detach()
    if _has_extra_state(module):
        destination[prefix + _EXTRA] = module.get_extra_state()


def state_dict(module: Any, args: tuple[Any, ...], destination: Any, prefix: str,
               keep_vars: bool) -> Any:
    """See `Module.state_dict`."""
    if args:                                    # the deprecated positional form
        destination = args[0] if destination is None else destination
        prefix = args[1] if len(args) > 1 and prefix == "" else prefix
        keep_vars = args[2] if len(args) > 2 and not keep_vars else keep_vars
    if destination is None:
        destination = StateDict()
        destination._metadata = OrderedDict()
    local = {"version": module._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = local
    for hook in module._state_dict_pre_hooks.values():
        hook(module, prefix, keep_vars)
    module._save_to_state_dict(destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=destination, prefix=f"{prefix}{name}.",
                             keep_vars=keep_vars)
    for hook in module._state_dict_hooks.values():
        out = hook(module, destination, prefix, local)
        if out is not None:
            destination = out
    return destination


def load_own(module: Any, entries: Mapping[str, Any], prefix: str, local_metadata: Any,
             strict: bool, missing: list[str], unexpected: list[str], errors: list[str]) -> None:
    """Copy the module's own tensors, not its children's, out of `entries`."""
    for hook in module._load_state_dict_pre_hooks.values():
        hook(entries, prefix, local_metadata, strict, missing, unexpected, errors)
    kept = {k: v for k, v in module._buffers.items()
            if k not in module._non_persistent_buffers_set}
    local = {k: v for k, v in itertools.chain(module._parameters.items(), kept.items())
             if v is not None}
    assign = local_metadata.get("assign_to_params_buffers", False)
    for name, target in local.items():
        key = prefix + name
        if key in entries:
            _load_one(module, name, key, target, entries[key], assign, errors)
        elif strict:
            missing.append(key)
    extra = prefix + _EXTRA
    if _has_extra_state(module):
        if extra in entries:
            module.set_extra_state(entries[extra])
        elif strict:
            missing.append(extra)
    elif strict and extra in entries:
        unexpected.append(extra)
    if strict:
        for key in entries:
            if key.startswith(prefix) and key != extra:
                head, *rest = key[len(prefix):].split(".", 1)
                known = head in module._modules if rest else head in local
                if not known:
                    unexpected.append(key)


def _load_one(module: Any, name: str, key: str, target: Tensor, value: Any, assign: bool,
              errors: list[str]) -> None:
    if not isinstance(value, Tensor):
        import numpy as np
        if isinstance(value, np.ndarray):
            import facula
            value = facula.from_numpy(value)
        else:
            errors.append(f'While copying the parameter named "{key}", expected facula.Tensor or '
                          f"Tensor-like object from checkpoint but received {type(value)}")
            return
    if is_lazy(target):
        if is_lazy(value):
            return
        target.materialize(value.shape)             # type: ignore[attr-defined]
    elif is_lazy(value):
        errors.append(f"While copying the parameter named {key!r}: it has shape "
                      f"{list(target.shape)} in the model, and in the checkpoint it was never "
                      "given one")
        return
    if value.ndim == 1 and value.shape[0] == 1 and target.ndim == 0:
        value = value[0]                # scalars were once saved with one dimension
    if value.shape != target.shape:
        errors.append(f"size mismatch for {key}: copying a param with shape {value.shape} from "
                      f"checkpoint, the shape in current model is {target.shape}.")
        return
    try:
        if assign:
            if isinstance(target, Parameter):
                if not isinstance(value, Parameter):
                    value = Parameter(value, target.requires_grad)
                else:
                    value.requires_grad_(target.requires_grad)
            setattr(module, name, value)
        else:
            target.copy_(value)
    except Exception as e:
        errors.append(f'While copying the parameter named "{key}", whose dimensions in the model '
                      f"are {target.shape} and whose dimensions in the checkpoint are "
                      f"{value.shape}, an exception occurred : {e.args}.")


def load_state_dict(module: Any, entries: Mapping[str, Any], strict: bool,
                    assign: bool) -> IncompatibleKeys:
    """See `Module.load_state_dict`."""
    if not isinstance(entries, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(entries)}.")
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    metadata = getattr(entries, "_metadata", None)
    entries = OrderedDict(entries)

    def load(mod: Any, part: Mapping[str, Any], prefix: str) -> None:
        local = dict({} if metadata is None else metadata.get(prefix[:-1], {}))
        if assign:
            local["assign_to_params_buffers"] = True
        mod._load_from_state_dict(part, prefix, local, True, missing, unexpected, errors)
        for name, child in mod._modules.items():
            if child is not None:
                inner = f"{prefix}{name}."
                load(child, {k: v for k, v in part.items() if k.startswith(inner)}, inner)
        keys = IncompatibleKeys(missing, unexpected)
        for hook in mod._load_state_dict_post_hooks.values():
            if hook(mod, keys) is not None:
                raise AssertionError("Hooks registered with ``register_load_state_dict_post_hook``"
                                     " are not expected to return new values, if "
                                     "incompatible_keys need to be modified, it should be done "
                                     "inplace.")

    rec = recorder()
    grad, rec.grad = rec.grad, False
    try:
        load(module, entries, "")
    finally:
        rec.grad = grad
    if strict:
        if unexpected:
            errors.insert(0, "Unexpected key(s) in state_dict: "
                          + ", ".join(f'"{k}"' for k in unexpected) + ". ")
        if missing:
            errors.insert(0, "Missing key(s) in state_dict: "
                          + ", ".join(f'"{k}"' for k in missing) + ". ")
    if errors:
        raise RuntimeError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t"
                           + "\n\t".join(errors))
    settle()
    return IncompatibleKeys(missing, unexpected)


def parse_to(*args: Any, **kwargs: Any) -> tuple[Any, DType | None]:
    """The device and dtype that the arguments of `to` ask for, each None if not given."""
    device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
    kwargs.pop("non_blocking", None)
    kwargs.pop("copy", None)
    kwargs.pop("memory_format", None)
    if kwargs:
        raise TypeError(f"to() got an unexpected keyword argument '{next(iter(kwargs))}'")
    for arg in args:
        if isinstance(arg, DType):
            dtype = arg
        elif isinstance(arg, Tensor):
            dtype = arg.dtype
        elif isinstance(arg, bool) or arg is None:
            continue                    # non_blocking and copy say nothing here
        else:
            device = arg
    return device, dtype
