"""Module: the base of every layer and model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from facula.errors import FaculaError
from facula.graph.record import recorder, settle
from facula.graph.tape import changes as _changes
from facula.nn.modules import state
from facula.nn.modules.explain import locate
from facula.nn.modules.hooks import (
    GLOBAL,
    BackwardHooks,
    Hookable,
    HookDict,
    register_module_buffer_registration_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from facula.nn.modules.shown import Shown
from facula.nn.modules.walk import Walkable
from facula.nn.parameter import Buffer, Parameter, is_lazy
from facula.tensor import Tensor

__all__ = ["Module", "register_module_buffer_registration_hook", "register_module_forward_hook",
           "register_module_forward_pre_hook", "register_module_full_backward_hook",
           "register_module_full_backward_pre_hook", "register_module_module_registration_hook",
           "register_module_parameter_registration_hook"]

T = TypeVar("T", bound="Module")
_IncompatibleKeys = state.IncompatibleKeys
_set = object.__setattr__
_TABLES = ("_parameters", "_buffers", "_modules")


class Module(Hookable, Walkable):
    """A piece of a network: parameters, buffers and other modules, and a `forward`.

    Subclasses call `super().__init__()` first, assign their parts as attributes and define
    `forward`.  Assigning a `Parameter`, a `Buffer` or a `Module` registers it by its name.
    """

    _version: int = 1
    """Version of the state dictionary's layout; kept in its metadata."""

    training: bool
    call_super_init: bool = False
    _called: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and (args or kwargs):
            if kwargs:
                raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword "
                                f"argument '{next(iter(kwargs))}'")
            raise TypeError(f"{type(self).__name__}.__init__() takes 1 positional argument but "
                            f"{len(args) + 1} were given")
        _set(self, "training", True)
        _set(self, "_parameters", Shown(self.__dict__))
        _set(self, "_buffers", Shown(self.__dict__))
        _set(self, "_non_persistent_buffers_set", set())
        _set(self, "_modules", Shown(self.__dict__))
        for name in state.HOOKS:
            _set(self, name, HookDict())
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required '
                                  '"forward" function')

    # -- calling
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`, with the hooks; an error of facula's comes out with its place named."""
        if not self._called:
            _first_call(self)
        try:
            if not (self._forward_hooks or self._forward_pre_hooks or self._backward_hooks
                    or self._backward_pre_hooks or GLOBAL.forward or GLOBAL.forward_pre
                    or GLOBAL.backward or GLOBAL.backward_pre):
                return self.forward(*args, **kwargs)
            return self._call_with_hooks(args, kwargs)
        except FaculaError as error:
            locate(error, self, args, kwargs)
            raise

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        called: set[int] = set()
        try:
            return self._hooked(args, kwargs, called)
        except Exception:
            for key, hook in (*GLOBAL.forward.items(), *self._forward_hooks.items()):
                wants = GLOBAL.forward_always, self._forward_hooks_always_called
                if key in called or not (key in wants[0] or key in wants[1]):
                    continue
                try:
                    self._run_forward_hook(key, hook, args, kwargs, None)
                except Exception as e:
                    import warnings
                    warnings.warn("module forward hook with ``always_call=True`` raised an "
                                  "exception that was silenced as another error was raised in "
                                  f"forward: {e}", stacklevel=3)
            raise

    def _run_forward_hook(self, key: int, hook: Any, args: Any, kwargs: Any, result: Any) -> Any:
        if key in self._forward_hooks_with_kwargs or key in GLOBAL.forward_kwargs:
            return hook(self, args, kwargs, result)
        return hook(self, args, result)

    def _hooked(self, args: tuple[Any, ...], kwargs: dict[str, Any], called: set[int]) -> Any:
        for key, hook in (*GLOBAL.forward_pre.items(), *self._forward_pre_hooks.items()):
            if key in self._forward_pre_hooks_with_kwargs:
                out = hook(self, args, kwargs)
                if out is not None:
                    if not (isinstance(out, tuple) and len(out) == 2):
                        raise RuntimeError("forward pre-hook must return None or a tuple of "
                                           f"(new_args, new_kwargs), but got {out}.")
                    args, kwargs = out
            else:
                out = hook(self, args)
                if out is not None:
                    args = out if isinstance(out, tuple) else (out,)
        boundary = None
        backward = [*GLOBAL.backward.values(), *self._backward_hooks.values()]
        backward_pre = [*GLOBAL.backward_pre.values(), *self._backward_pre_hooks.values()]
        if backward or backward_pre:
            boundary = BackwardHooks(self, backward, backward_pre)
            args = boundary.inputs(args)
        result = self.forward(*args, **kwargs)
        for key, hook in (*GLOBAL.forward.items(), *self._forward_hooks.items()):
            called.add(key)
            out = self._run_forward_hook(key, hook, args, kwargs, result)
            if out is not None:
                result = out
        return boundary.outputs(result) if boundary is not None else result

    def compile(self, **kwargs: Any) -> None:
        """Capture and replay this module's `forward` from now on; see `facula.compile`.

        Its own hooks run as they are, around it.
        """
        import facula
        self.__dict__["forward"] = facula.compile(self.forward, **kwargs)

    def _explain(self, args: tuple[Any, ...],
                 kwargs: dict[str, Any]) -> tuple[str | None, str | None]:
        """What is wrong with a call that raised a shape or dtype error, and the likely fix."""
        return None, None

    # -- attributes
    def __getattr__(self, name: str) -> Any:
        d = self.__dict__
        for kind in _TABLES:
            found = d.get(kind)
            if found is not None and name in found:
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        _changes[0] += 1
        d = self.__dict__
        if isinstance(value, Parameter):
            if "_parameters" not in d:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, "_buffers", "_modules")
            self.register_parameter(name, value)
            return
        params = d.get("_parameters")
        if params is not None and name in params:
            if value is not None:
                raise TypeError(f"cannot assign '{_typename(value)}' as parameter '{name}' "
                                "(facula.nn.Parameter or None expected)")
            self.register_parameter(name, None)
            return
        modules = d.get("_modules")
        if isinstance(value, Module):
            if modules is None:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._forget(name, "_parameters", "_buffers")
            for hook in GLOBAL.module.values():
                out = hook(self, name, value)
                value = value if out is None else out
            modules[name] = value
            return
        if modules is not None and name in modules:
            if value is not None:
                raise TypeError(f"cannot assign '{_typename(value)}' as child module '{name}' "
                                "(facula.nn.Module or None expected)")
            modules[name] = None
            return
        buffers = d.get("_buffers")
        if isinstance(value, Buffer) or buffers is not None and name in buffers:
            if buffers is None:
                raise AttributeError("cannot assign buffer before Module.__init__() call")
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"cannot assign '{_typename(value)}' as buffer '{name}' "
                                "(facula.nn.Buffer, facula.Tensor or None expected)")
            if isinstance(value, Buffer) and name not in buffers:
                self._forget(name, "_parameters", "_modules")
                self.register_buffer(name, value, value.persistent)
                return
            for hook in GLOBAL.buffer.values():
                out = hook(self, name, value)
                value = value if out is None else out
            buffers[name] = value
            return
        _set(self, name, value)

    def _forget(self, name: str, *kinds: str) -> None:
        self.__dict__.pop(name, None)
        for kind in kinds:
            self.__dict__[kind].pop(name, None)
        if "_buffers" in kinds:
            self._non_persistent_buffers_set.discard(name)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if hasattr(state.get("forward"), "is_compiled"):        # bound to this module
            del state["forward"]
        for table in _TABLES:
            for name in state.get(table, ()):
                if state.get(name) is state[table][name]:
                    del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        d = self.__dict__
        d.update(state)
        for table in _TABLES:
            if table in d:
                shown = Shown(d)
                shown.update(state[table])
                d[table] = shown

    def __delattr__(self, name: str) -> None:
        _changes[0] += 1
        if name in self._parameters:
            del self._parameters[name]
        elif name in self._buffers:
            del self._buffers[name]
            self._non_persistent_buffers_set.discard(name)
        elif name in self._modules:
            del self._modules[name]
        else:
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._modules,
                 *self._buffers}
        return sorted(n for n in names if not n[0].isdigit())

    def _check_name(self, name: Any, kind: str, table: Mapping[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {_typename(name)}")
        if "." in name:
            raise KeyError(f"{kind} name can't contain \".\"" +
                           (f", got: {name}" if kind == "module" else ""))
        if name == "":
            raise KeyError(f"{kind} name can't be empty string \"\"")
        if hasattr(self, name) and name not in table:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add `param` under `name`; None keeps the name and leaves it out of `parameters()`."""
        if "_parameters" not in self.__dict__:
            raise AttributeError("cannot assign parameter before Module.__init__() call")
        self._check_name(name, "parameter", self._parameters)
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(f"cannot assign '{_typename(param)}' object to parameter "
                                f"'{name}' (facula.nn.Parameter or None required)")
            for hook in GLOBAL.parameter.values():
                out = hook(self, name, param)
                param = param if out is None else out
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is part of the state but is not trained."""
        if "_buffers" not in self.__dict__:
            raise AttributeError("cannot assign buffer before Module.__init__() call")
        self._check_name(name, "buffer", self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{_typename(tensor)}' object to buffer '{name}' "
                            "(facula.Tensor or None required)")
        for hook in GLOBAL.buffer.values():
            out = hook(self, name, tensor)
            tensor = tensor if out is None else out
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under `name`."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_typename(module)} is not a Module subclass")
        self._check_name(name, "module", self._modules)
        for hook in GLOBAL.module.values():
            out = hook(self, name, module)
            module = module if out is None else out
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """Another name of `add_module`."""
        self.add_module(name, module)

    # -- changing everything at once
    def apply(self: T, fn: Callable[[Module], Any]) -> T:
        """Call `fn` on every module inside, children first, then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self: T, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> T:
        """Replace the data of every parameter, gradient and buffer by `fn` of it."""
        rec = recorder()
        grad, rec.grad = rec.grad, False
        try:
            seen: dict[int, Tensor] = {}
            for module in self.modules() if recurse else [self]:
                for param in module._parameters.values():
                    if param is None or id(param) in seen:
                        continue
                    seen[id(param)] = param
                    if is_lazy(param):
                        param._convert(fn)          # type: ignore[attr-defined]
                        continue
                    new = fn(param.detach())
                    if new is not param:
                        param.data = new
                    if param._grad is not None:
                        param._grad = fn(param._grad.detach())
                for name, buffer in module._buffers.items():
                    if is_lazy(buffer):
                        if id(buffer) not in seen:
                            seen[id(buffer)] = buffer           # type: ignore[assignment]
                            buffer._convert(fn)     # type: ignore[union-attr]
                    elif buffer is not None:
                        if id(buffer) not in seen:
                            seen[id(buffer)] = fn(buffer)
                        module._buffers[name] = seen[id(buffer)]
        finally:
            rec.grad = grad
        return self

    def to(self: T, *args: Any, **kwargs: Any) -> T:
        """Move or cast the parameters and buffers, in place; integer ones keep their dtype.

        `to(device)`, `to(dtype)`, `to(device, dtype)`, `to(tensor)`.
        """
        device, dtype = state.parse_to(*args, **kwargs)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError("nn.Module.to only accepts floating point or complex dtypes, but got "
                            f"desired dtype={dtype}")

        def convert(t: Tensor) -> Tensor:
            inexact = t.dtype.is_floating_point or t.dtype.is_complex
            if device is not None:
                t = t.to(device)
            return t.to(dtype) if dtype is not None and inexact else t

        return self._apply(convert)

    def type(self: T, dst_type: Any) -> T:
        """Cast every parameter and buffer to `dst_type`."""
        return self._apply(lambda t: t.to(dst_type))

    def _floating(self: T, dtype: Any) -> T:
        return self._apply(lambda t: t.to(dtype) if t.dtype.is_floating_point else t)

    def float(self: T) -> T:
        """Cast the floating-point parameters and buffers to float32."""
        from facula.dtype import float32
        return self._floating(float32)

    def double(self: T) -> T:
        """Cast the floating-point parameters and buffers to float64."""
        from facula.dtype import float64
        return self._floating(float64)

    def half(self: T) -> T:
        """Cast the floating-point parameters and buffers to float16."""
        from facula.dtype import float16
        return self._floating(float16)

    def bfloat16(self: T) -> T:
        """Cast the floating-point parameters and buffers to bfloat16."""
        from facula.dtype import bfloat16
        return self._floating(bfloat16)

    def cpu(self: T) -> T:
        """Move everything to the CPU."""
        return self._apply(lambda t: t.to("cpu"))

    def cuda(self: T, device: Any = None) -> T:
        """Raises RuntimeError, as facula computes on the CPU."""
        return self._apply(lambda t: t.cuda(device))        # type: ignore[attr-defined]

    def share_memory(self: T) -> T:
        """`share_memory_` of every parameter and buffer."""
        return self._apply(lambda t: t.share_memory_())     # type: ignore[attr-defined]

    def to_empty(self: T, *, device: Any, recurse: bool = True) -> T:
        """Give every parameter and buffer memory of its own, without anything in it yet."""
        import facula
        return self._apply(lambda t: facula.empty(t.shape, dtype=t.dtype, device=device), recurse)

    def train(self: T, mode: bool = True) -> T:
        """Put the module and all inside it in training mode (dropout on, batch statistics)."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: T) -> T:
        """Put the module and all inside it in evaluation mode."""
        return self.train(False)

    def requires_grad_(self: T, requires_grad: bool = True) -> T:
        """Say for every parameter whether it is trained."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or fill them with zeros."""
        for p in self.parameters():
            if p._grad is not None:
                if set_to_none:
                    p._grad = None
                else:
                    p._grad = p._grad.detach()
                    p._grad.zero_()

    # -- state
    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "",
                   keep_vars: bool = False) -> Any:
        """Parameters and persistent buffers by dotted name, in an OrderedDict.

        The tensors share the module's memory and are detached unless `keep_vars`.
        """
        return state.state_dict(self, args, destination, prefix, keep_vars)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True,
                        assign: bool = False) -> Any:
        """Copy a state dictionary into this module; returns what did not match.

        `assign` takes the tensors themselves instead of their values.
        Raises RuntimeError that lists missing and unexpected keys (`strict`) and wrong sizes.
        """
        return state.load_state_dict(self, state_dict, strict, assign)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        state.save_own(self, destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any,
                              strict: bool, missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        state.load_own(self, state_dict, prefix, local_metadata, strict, missing_keys,
                       unexpected_keys, error_msgs)

    def get_extra_state(self) -> Any:
        """Anything else to keep in the state dictionary; define it with `set_extra_state`."""
        raise RuntimeError("Reached a code path in Module.get_extra_state() that should never be "
                           "called.")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` returned."""
        raise RuntimeError("Reached a code path in Module.set_extra_state() that should never be "
                           "called.")

    # -- printing and copying
    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses besides the children."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {_indent(repr(module))}"
                    for name, module in self._modules.items()]
        text = self._get_name() + "("
        if lines or children:
            if len(lines) == 1 and not children:
                text += lines[0]
            else:
                text += "\n  " + "\n  ".join(lines + children) + "\n"
        return text + ")"

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        import copy
        new = object.__new__(type(self))
        memo[id(self)] = new
        for name, value in self.__dict__.items():
            if not (name == "forward" and hasattr(value, "is_compiled")):   # bound to this one
                new.__dict__[name] = copy.deepcopy(value, memo)
        return new

    def __copy__(self: T) -> T:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        if hasattr(new.__dict__.get("forward"), "is_compiled"):
            del new.__dict__["forward"]
        return new


def _first_call(module: Module) -> None:
    """Draw parameters that are still to be drawn, apart from the first step."""
    if settle([p._node for p in module.parameters() if not is_lazy(p)]):
        for part in module.modules():
            part.__dict__["_called"] = True


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def _typename(value: Any) -> str:
    kind = type(value)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__.split('.')[0]}.{kind.__qualname__}"


