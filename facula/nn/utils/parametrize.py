"""Parametrizations: a parameter or buffer computed from others whenever it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from facula.errors import DTypeError, ShapeError
from facula.nn.init import no_grad
from facula.nn.modules.container import ModuleDict, ModuleList
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import Tensor

__all__ = ["cached", "ParametrizationList", "register_parametrization", "is_parametrized",
           "remove_parametrizations", "type_before_parametrizations",
           "transfer_parametrizations_and_params"]

_depth = 0                      # of `cached` blocks
_values: dict[tuple[int, str], Tensor] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Within this block each parametrized tensor is computed once, at its first use.

    For a weight that is used many times in a step, as in a recurrent network.
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            _values.clear()


def _register(module: Module, name: str, value: Tensor) -> None:
    if isinstance(value, Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


class _ShapeValueError(ShapeError, ValueError):
    pass


class _DTypeValueError(DTypeError, ValueError):
    pass


def _same(what: str, value: Any, dtype: Any, shape: Any = None) -> None:
    """Raise unless `value` is a tensor of this dtype and, if given, shape."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must return a tensor. Got {type(value).__name__}")
    if value.dtype is not dtype:
        raise _DTypeValueError(f"{what} may not change the dtype of the tensor, unless the "
                               f"`unsafe` flag is enabled: {dtype} became {value.dtype}")
    if shape is not None and value.shape != shape:
        raise _ShapeValueError(f"{what} may not change the shape of the tensor, unless the "
                               f"`unsafe` flag is enabled: {list(shape)} became "
                               f"{list(value.shape)}")


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, and what it is computed from.

    That is `original`, or `original0`, `original1`, ... where the first parametrization's
    `right_inverse` gave several.  Calling it computes the tensor.
    """

    original: Tensor

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        dtype, shape = original.dtype, original.shape
        new: Any = original
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    try:
                        new = module.right_inverse(new)
                    except NotImplementedError:
                        pass                        # it starts from the tensor as it is
        if not isinstance(new, (Tensor, Sequence)):
            raise ValueError("'right_inverse' must return a Tensor or a Sequence of tensors "
                             f"(list, tuple...). Got {type(new).__name__}.")
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        if isinstance(new, Tensor):
            _same("'right_inverse'", new, dtype)
            if new is not original:
                original.data = new.detach()        # the same parameter, as optimisers know it
            _register(self, "original", original)
        else:
            for k, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise ValueError("'right_inverse' must return a Tensor or a Sequence of "
                                     f"tensors (list, tuple...). Got element {k} of the "
                                     f"sequence with type {type(part).__name__}.")
                _register(self, f"original{k}", Parameter(part, original.requires_grad)
                          if isinstance(original, Parameter) else part)
        if not unsafe:
            _same("A parametrization", self(), dtype, shape)

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{k}") for k in range(self.ntensors)]

    def right_inverse(self, value: Any) -> None:
        """Set what the tensor is computed from, so that it becomes `value`.

        Raises RuntimeError where a parametrization has no `right_inverse`, and ValueError where
        it returns something that does not fit.
        """
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrization {type(module).__name__} does not "
                                       "implement right_inverse.")
                value = module.right_inverse(value)
        if self.is_tensor:
            parts: Sequence[Any] = [value]
        elif isinstance(value, Sequence):
            parts = value
        else:
            raise ValueError("'right_inverse' must return a sequence of tensors. Got "
                             f"{type(value).__name__}.")
        if len(parts) != self.ntensors:
            raise ValueError("'right_inverse' must return a sequence of tensors of length "
                             f"{self.ntensors}. Got a sequence of length {len(parts)}.")
        for k, (old, part) in enumerate(zip(self._originals(), parts)):
            if not isinstance(part, Tensor):
                raise ValueError(f"`right_inverse` should return tensors. Got element {k} of type "
                                 f"{type(part).__name__}")
            if part.dtype is not old.dtype:
                raise _DTypeValueError(f"Tensor {k} returned by `right_inverse` has dtype "
                                       f"{part.dtype} while the original has dtype {old.dtype}")
            old.data = part.detach()

    def forward(self) -> Any:
        first, *rest = self
        value = first(*self._originals())
        for module in rest:
            value = module(value)
        return value


def _property(name: str) -> property:
    def get(self: Any) -> Any:
        compute = self.parametrizations[name]
        if not _depth:
            return compute()
        key = (id(self), name)
        found = _values.get(key)
        if found is None:
            found = _values[key] = compute()
        return found

    def put(self: Any, value: Any) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, put)


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    # The copy gets a class of its own, so that what is done to one does not change the other.
    cls = type_before_parametrizations(self)
    new: Any = cls.__deepcopy__(self, memo)                 # type: ignore[attr-defined]
    new.__class__ = _class(cls, new.parametrizations)
    return new


def _class(cls: type, names: Any = ()) -> Any:
    """A subclass of `cls` of which these attributes are computed."""
    body = {"__deepcopy__": _deepcopy, **{name: _property(name) for name in names}}
    return type(f"Parametrized{cls.__name__}", (cls,), body)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *,
                             unsafe: bool = False) -> Module:
    """Make `module.tensor_name` be `parametrization(original)`; returns the module.

    module           has a parameter, buffer or parametrized tensor of that name
    parametrization  its optional method `right_inverse` says what `original` starts as, from
                     what the tensor is now, and lets the tensor be assigned to; it may return
                     several tensors, which its forward then takes
    unsafe           do not check that the tensor keeps its shape and dtype

    Several are applied one after the other.  The module's class becomes a subclass of it, named
    `Parametrized...`.  Raises ValueError for an unknown name or a tensor that does not fit.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            before = getattr(module, tensor_name)
            after = parametrization(before)
            _same("A parametrization", after, before.dtype, before.shape)
            if hasattr(parametrization, "right_inverse"):
                try:
                    back = parametrization.right_inverse(after)
                except NotImplementedError:
                    pass
                else:
                    _same("parametrization.right_inverse", back, before.dtype, before.shape)
        parts: Any = module.parametrizations[tensor_name]           # type: ignore[index]
        parts.append(parametrization)
        parts.unsafe |= unsafe
    elif tensor_name in module._parameters or tensor_name in module._buffers:
        parts = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            module.__class__ = _class(type(module))
            module.parametrizations = ModuleDict()
        setattr(type(module), tensor_name, _property(tensor_name))
        module.parametrizations[tensor_name] = parts
    else:
        raise ValueError(f"Module '{module}' does not have a parameter, a buffer, or a "
                         f"parametrized element with name '{tensor_name}'")
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether `module` has a parametrized tensor, or one of that name."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return tensor_name in found if tensor_name is not None else len(found) > 0


def remove_parametrizations(module: Module, tensor_name: str,
                            leave_parametrized: bool = True) -> Module:
    """Make `module.tensor_name` an ordinary tensor again; returns the module.

    It has its present value or, with `leave_parametrized=False`, that of `original`.  Raises
    ValueError where there is no parametrization, or no single original to go back to.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    table: Any = module.parametrizations
    parts = table[tensor_name]
    if parts.is_tensor:
        original = parts.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name).detach()
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value) if value.requires_grad else value
    else:
        raise ValueError("Cannot leave unparametrized (`leave_parametrized=False`) a tensor that "
                         "is parametrized in terms of a sequence of tensors.")
    delattr(type(module), tensor_name)
    del table[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The module's class without its parametrizations."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(from_module: Module, to_module: Module,
                                         tensor_name: str | None = None) -> Module:
    """Give `to_module` the parametrizations of `from_module`, and copies of what they start from.

    Of `tensor_name` alone if that is given.  The parametrizations are shared.  Returns
    `to_module`.
    """
    if not is_parametrized(from_module):
        return to_module
    table: Any = from_module.parametrizations
    for name in list(table) if tensor_name is None else [tensor_name]:
        parts = table[name]
        if not hasattr(to_module, name):
            value = getattr(from_module, name).detach().clone()
            setattr(to_module, name, Parameter(value) if any(
                isinstance(t, Parameter) for t in parts._originals()) else value)
        for part in parts:
            register_parametrization(to_module, name, part, unsafe=parts.unsafe)
        there: Any = to_module.parametrizations[name]       # type: ignore[index]
        with no_grad():
            for mine, theirs in zip(there._originals(), parts._originals()):
                mine.data = theirs.detach().clone()
    return to_module
