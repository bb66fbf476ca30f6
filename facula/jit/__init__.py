"""`torch.jit`, as far as programs decorate with it and ask it.

TorchScript is a language of its own; here Python is what is recorded and compiled, so `script`
and the marks that speak to its compiler leave a function or a module as it is.  `trace` runs its
example and returns what it was given, compiled.  Files of TorchScript hold its code and are
neither written nor read.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from facula.tensor import Tensor

__all__ = ["Attribute", "Error", "Final", "Future", "ScriptFunction", "ScriptModule", "annotate",
           "export", "fork", "freeze", "ignore", "interface", "is_scripting", "is_tracing",
           "isinstance", "load", "optimize_for_inference", "optimized_execution", "save", "script",
           "script_if_tracing", "script_method", "trace", "trace_module", "unused", "wait",
           "enable_onednn_fusion", "onednn_fusion_enabled", "set_fusion_strategy", "strict_fusion"]

T = TypeVar("T")
_isinstance = isinstance


class Error(RuntimeError):
    """What TorchScript raises for a Python exception of its own; nothing here does."""


class ScriptModule:
    """A module compiled to TorchScript: there are none, so nothing is an instance."""

    def __init__(self) -> None:
        raise NotImplementedError("facula has no TorchScript: write an nn.Module, and compile it "
                                  "with facula.compile")


class ScriptFunction:
    """A function compiled to TorchScript: there are none, so nothing is an instance."""

    def __init__(self) -> None:
        raise NotImplementedError("facula has no TorchScript: compile a function with "
                                  "facula.compile")


def script(obj: T, optimize: Any = None, _frames_up: int = 0, _rcb: Any = None,
           example_inputs: Any = None) -> T:
    """`obj`, a function, a class or a module, as it is: Python is recorded, not translated."""
    return obj


def script_if_tracing(fn: T) -> T:
    """The function as it is."""
    return fn


def script_method(fn: T) -> T:
    """The method as it is."""
    return fn


def export(fn: T) -> T:
    """The method as it is; a mark for TorchScript's compiler."""
    return fn


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """The function as it is; a mark for TorchScript's compiler, with or without arguments."""
    return drop if callable(drop) else lambda fn: fn


def unused(fn: T) -> T:
    """The function as it is; a mark for TorchScript's compiler."""
    return fn


def interface(obj: T) -> T:
    """The class as it is; a mark for TorchScript's compiler."""
    return obj


def annotate(the_type: Any, the_value: T) -> T:
    """The value; the type is for TorchScript's compiler."""
    return the_value


def Attribute(value: T, type: Any) -> T:
    """The value; the type is for TorchScript's compiler."""
    return value


def is_scripting() -> bool:
    """False: this is Python."""
    return False


def is_tracing() -> bool:
    """False: control flow is followed each time, as Python does."""
    return False


def isinstance(obj: Any, target_type: Any) -> bool:
    """Whether `obj` is of `target_type`, which may be List[int], Optional[Tensor] and the like."""
    if _isinstance(target_type, tuple):
        return any([isinstance(obj, t) for t in target_type])
    kind, inner = typing.get_origin(target_type), typing.get_args(target_type)
    if kind is None:
        return target_type is Any or _isinstance(obj, target_type or type(None))
    if not _isinstance(kind, type) or kind.__name__ in ("Union", "UnionType"):
        return any([isinstance(obj, t) for t in inner])
    if not _isinstance(obj, kind):
        return False
    if kind is dict:
        return all([isinstance(k, inner[0]) and isinstance(v, inner[1])
                    for k, v in obj.items()])
    if kind is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        return len(obj) == len(inner) and all([isinstance(v, t) for v, t in zip(obj, inner)])
    return all([isinstance(v, inner[0]) for v in obj])


# ---------------------------------------------------------------- tracing

def trace(func: Any, example_inputs: Any = None, optimize: Any = None, check_trace: bool = True,
          check_inputs: Any = None, check_tolerance: float = 1e-5, strict: bool = True,
          _force_outplace: bool = False, _module_class: Any = None, _compilation_unit: Any = None,
          example_kwarg_inputs: Any = None, _store_inputs: bool = True) -> Any:
    """`func`, a function or a module, run once on the example and compiled (`facula.compile`).

    What Python decides is not frozen: another path through the function is recorded as such.
    """
    if example_inputs is None and example_kwarg_inputs is None:
        raise RuntimeError("trace: example_inputs or example_kwarg_inputs has to be given")
    args = (example_inputs,) if _isinstance(example_inputs, Tensor) else tuple(
        example_inputs or ())
    from facula.compiler import compile
    found = compile(func)
    found(*args, **(example_kwarg_inputs or {}))
    return found


def trace_module(mod: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """The module, its methods named in `inputs` run once on their examples and compiled.

    AttributeError for a method that the module does not have.
    """
    from facula.compiler import compile
    for name, example in inputs.items():
        method = compile(getattr(mod, name))
        method(*((example,) if _isinstance(example, Tensor) else tuple(example)))
        object.__setattr__(mod, name, method)
    return mod


def freeze(mod: T, preserved_attrs: Any = None, optimize_numerics: bool = True) -> T:
    """The module as it is: without gradients, what depends on parameters alone is kept anyway.

    RuntimeError for a module in training mode.
    """
    if getattr(mod, "training", False):
        raise RuntimeError("freeze: the module is in training mode; call eval() first")
    return mod


def optimize_for_inference(mod: T, other_methods: Any = None) -> T:
    """The module as it is: programs without gradients are optimised anyway."""
    return mod


class optimized_execution:
    """A context without effect: programs are always optimised."""

    def __init__(self, should_optimize: bool) -> None:
        self.should_optimize = should_optimize

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None


class strict_fusion(optimized_execution):
    """A context without effect: what can be fused is."""

    def __init__(self) -> None:
        super().__init__(True)


def set_fusion_strategy(strategy: Any) -> list[Any]:
    """Without effect; returns an empty list of strategies."""
    return []


def enable_onednn_fusion(enabled: bool) -> None:
    """Without effect: oneDNN is not used."""


def onednn_fusion_enabled() -> bool:
    """False: oneDNN is not used."""
    return False


# ---------------------------------------------------------------- asynchronous calls, in order

class Future:
    """The result of `fork`, which is there already."""

    def __init__(self, result: Any):
        self._result = result

    def wait(self) -> Any:
        """The result."""
        return self._result

    def done(self) -> bool:
        """True."""
        return True

    value = wait


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Future:
    """`func(*args, **kwargs)` as a `Future`.  It is recorded now; what is independent of the rest
    may run in any order anyway."""
    return Future(func(*args, **kwargs))


def wait(future: Future) -> Any:
    """What `fork` has computed."""
    return future.wait()


# ---------------------------------------------------------------- files

def save(m: Any, f: Any, _extra_files: Any = None) -> NoReturn:
    """NotImplementedError: write m.state_dict() with facula.save."""
    raise NotImplementedError("facula writes no TorchScript: write the numbers with "
                              "facula.save(m.state_dict(), f)")


def load(f: Any, map_location: Any = None, _extra_files: Any = None,
         _restore_shapes: bool = False) -> NoReturn:
    """NotImplementedError: such files hold TorchScript's code."""
    raise NotImplementedError("facula runs no TorchScript: load the file with PyTorch, write its "
                              "state_dict(), and load that into an nn.Module")
