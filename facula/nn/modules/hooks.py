"""Hooks: functions that run before and after a module's forward and backward."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any

from facula.autograd.handle import RemovableHandle
from facula.graph.tape import changes
from facula.tensor import Tensor

__all__ = ["RemovableHandle", "BackwardHooks", "GLOBAL", "HookDict", "Hookable",
           "register_module_forward_pre_hook",
           "register_module_forward_hook", "register_module_full_backward_hook",
           "register_module_full_backward_pre_hook", "register_module_buffer_registration_hook",
           "register_module_module_registration_hook",
           "register_module_parameter_registration_hook"]


class HookDict(OrderedDict[int, Any]):
    """An ordered dictionary that can be referred to weakly, and whose changes are counted."""

    def __setitem__(self, key: int, hook: Any) -> None:
        changes[0] += 1
        super().__setitem__(key, hook)

    def __delitem__(self, key: int) -> None:
        changes[0] += 1
        super().__delitem__(key)

    def pop(self, key: int, default: Any = None) -> Any:        # type: ignore[override]
        """Take a hook out, if it is there."""
        changes[0] += 1
        return super().pop(key, default)

    def clear(self) -> None:
        """Take all hooks out."""
        changes[0] += 1
        super().clear()


class Hookable:
    """The part of `Module` that takes hooks; each method returns what takes its hook out again."""

    def _hook(self, table: str, hook: Any, prepend: bool = False,
              flags: tuple[tuple[str, bool], ...] = ()) -> RemovableHandle:
        hooks = getattr(self, table)
        handle = RemovableHandle(hooks, extra=[getattr(self, name) for name, _ in flags])
        hooks[handle.id] = hook
        for name, on in flags:
            if on:
                getattr(self, name)[handle.id] = True
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        return handle

    def register_forward_pre_hook(self, hook: Any, *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """`hook(module, args)` before forward; what it returns replaces the arguments."""
        return self._hook("_forward_pre_hooks", hook, prepend,
                          (("_forward_pre_hooks_with_kwargs", with_kwargs),))

    def register_forward_hook(self, hook: Any, *, prepend: bool = False,
                              with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """`hook(module, args, output)` after forward; what it returns replaces the output."""
        return self._hook("_forward_hooks", hook, prepend,
                          (("_forward_hooks_with_kwargs", with_kwargs),
                           ("_forward_hooks_always_called", always_call)))

    def register_full_backward_hook(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_input, grad_output)` once the input gradients are known."""
        return self._hook("_backward_hooks", hook, prepend)

    def register_backward_hook(self, hook: Any) -> RemovableHandle:
        """The old name of `register_full_backward_hook`."""
        return self._hook("_backward_hooks", hook)

    def register_full_backward_pre_hook(self, hook: Any,
                                        prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_output)` before the module's backward; may replace it."""
        return self._hook("_backward_pre_hooks", hook, prepend)

    def register_state_dict_pre_hook(self, hook: Any) -> RemovableHandle:
        """`hook(module, prefix, keep_vars)` before `state_dict` collects."""
        return self._hook("_state_dict_pre_hooks", hook)

    def register_state_dict_post_hook(self, hook: Any) -> RemovableHandle:
        """`hook(module, state_dict, prefix, local_metadata)` after `state_dict` collected."""
        return self._hook("_state_dict_hooks", hook)

    _register_state_dict_hook = register_state_dict_post_hook

    def register_load_state_dict_pre_hook(self, hook: Any) -> RemovableHandle:
        """`hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs)` before a state dictionary is loaded."""
        return self._hook("_load_state_dict_pre_hooks", functools.partial(hook, self))

    def _register_load_state_dict_pre_hook(self, hook: Any,
                                           with_module: bool = False) -> RemovableHandle:
        bound = functools.partial(hook, self) if with_module else hook
        return self._hook("_load_state_dict_pre_hooks", bound)

    def register_load_state_dict_post_hook(self, hook: Any) -> RemovableHandle:
        """`hook(module, incompatible_keys)` after a state dictionary was loaded."""
        return self._hook("_load_state_dict_post_hooks", hook)


class Hooks:
    """The hooks of all modules at once."""

    __slots__ = ("forward_pre", "forward", "forward_kwargs", "forward_always", "backward",
                 "backward_pre", "parameter", "buffer", "module")

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, HookDict())


GLOBAL = Hooks()


def _add(hooks: dict[int, Any], hook: Any, extra: Any = ()) -> RemovableHandle:
    handle = RemovableHandle(hooks, extra=extra)
    hooks[handle.id] = hook
    return handle


def register_module_forward_pre_hook(hook: Any) -> RemovableHandle:
    """`hook(module, args)` runs before the forward of every module."""
    return _add(GLOBAL.forward_pre, hook)


def register_module_forward_hook(hook: Any, *, with_kwargs: bool = False,
                                 always_call: bool = False) -> RemovableHandle:
    """`hook(module, args, output)` runs after the forward of every module."""
    handle = _add(GLOBAL.forward, hook, (GLOBAL.forward_kwargs, GLOBAL.forward_always))
    if with_kwargs:
        GLOBAL.forward_kwargs[handle.id] = True
    if always_call:
        GLOBAL.forward_always[handle.id] = True
    return handle


def register_module_full_backward_hook(hook: Any) -> RemovableHandle:
    """`hook(module, grad_input, grad_output)` runs in the backward pass of every module."""
    return _add(GLOBAL.backward, hook)


def register_module_full_backward_pre_hook(hook: Any) -> RemovableHandle:
    """`hook(module, grad_output)` runs before the backward pass of every module."""
    return _add(GLOBAL.backward_pre, hook)


def register_module_parameter_registration_hook(hook: Any) -> RemovableHandle:
    """`hook(module, name, parameter)` runs when a parameter is registered anywhere."""
    return _add(GLOBAL.parameter, hook)


def register_module_buffer_registration_hook(hook: Any) -> RemovableHandle:
    """`hook(module, name, buffer)` runs when a buffer is registered anywhere."""
    return _add(GLOBAL.buffer, hook)


def register_module_module_registration_hook(hook: Any) -> RemovableHandle:
    """`hook(module, name, submodule)` runs when a submodule is registered anywhere."""
    return _add(GLOBAL.module, hook)


class BackwardHooks:
    """The backward hooks of one call of one module.

    The tensors that enter the call and those that leave it each pass through an identity
    function of the gradient tape; the second sees `grad_output` and the first `grad_input`.
    """

    def __init__(self, module: Any, hooks: list[Any], pre_hooks: list[Any]):
        self.module = module
        self.hooks = hooks
        self.pre_hooks = pre_hooks
        self.grad_output: Any = None
        self.n_inputs = 0
        self.input_places: list[int] = []
        self.has_input = False

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.n_inputs = len(args)
        places = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
        if not places or not self.hooks:
            return args
        self.has_input = True
        self.input_places = places
        passed = _identity(lambda *g: self._leave(g), *[args[i] for i in places])
        new = list(args)
        for i, t in zip(places, passed):
            new[i] = t
        return tuple(new)

    def outputs(self, result: Any) -> Any:
        if isinstance(result, Tensor):
            parts, rebuild = [result], lambda ts: ts[0]
        elif isinstance(result, (tuple, list)):
            parts = list(result)
            made = type(result)
            rebuild = (lambda ts: made(*ts)) if hasattr(made, "_fields") else made
        elif isinstance(result, dict):
            keys = list(result)
            parts, rebuild = list(result.values()), lambda ts: type(result)(zip(keys, ts))
        else:
            return result
        places = [i for i, t in enumerate(parts) if isinstance(t, Tensor) and t.requires_grad]
        if not places:
            return result
        total = len(parts)
        passed = _identity(lambda *g: self._enter(g, places, total), *[parts[i] for i in places])
        for i, t in zip(places, passed):
            parts[i] = t
        return rebuild(parts)

    def _enter(self, grads: tuple[Any, ...], places: list[int], total: int) -> tuple[Any, ...]:
        full: list[Any] = [None] * total
        for i, g in zip(places, grads):
            full[i] = g
        grad_output = tuple(full)
        for hook in self.pre_hooks:
            out = hook(self.module, grad_output)
            if out is not None:
                grad_output = _tuple(out)
                if len(grad_output) != total:
                    raise RuntimeError("Backward pre hook returned an invalid number of "
                                       f"grad_output, got {len(grad_output)}, but expected "
                                       f"{total}")
        self.grad_output = grad_output
        if not self.has_input:
            # Nothing upstream wants a gradient, so this is the last that is seen of the call.
            self._run((None,) * self.n_inputs)
        return tuple(grad_output[i] for i in places)

    def _leave(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        full: list[Any] = [None] * self.n_inputs
        for i, g in zip(self.input_places, grads):
            full[i] = g
        out = self._run(tuple(full))
        return tuple(out[i] for i in self.input_places)

    def _run(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.hooks:
            out = hook(self.module, grad_input, self.grad_output)
            if out is not None:
                out = _tuple(out)
                if len(out) != len(grad_input):
                    raise RuntimeError("Backward hook returned an invalid number of grad_input, "
                                       f"got {len(out)}, but expected {len(grad_input)}")
                if self.has_input:
                    grad_input = out
                elif any(g is not None for g in out):
                    raise RuntimeError("Backward hook for Modules where no input requires "
                                       "gradient should always return None or None for all "
                                       "gradients.")
        return grad_input


def _tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else tuple(x) if isinstance(x, list) else (x,)


_function: Any = None


def _identity(on_backward: Any, *tensors: Tensor) -> tuple[Any, ...]:
    """Pass tensors through unchanged, and their gradients through `on_backward`."""
    global _function
    if _function is None:
        from facula.autograd import Function

        class ModuleBoundary(Function):     # type: ignore[misc, valid-type]
            @staticmethod
            def forward(ctx: Any, callback: Any, *inputs: Any) -> Any:
                ctx.callback = callback
                return tuple(t.clone() for t in inputs)

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                return (None, *ctx.callback(*grads))

        _function = ModuleBoundary
    out = _function.apply(on_backward, *tensors)
    return out if isinstance(out, tuple) else (out,)
