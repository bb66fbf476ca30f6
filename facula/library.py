"""Operations of your own, by name: `torch.library`.

An operation is a Python function of tensors.  What it records is part of the graph like all else,
so none is opaque to the compiler, and shapes need no function of their own (`register_fake`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from facula.ops.custom import CustomOp
from facula.ops.custom import define as _define

__all__ = ["CustomOpDef", "Library", "custom_op", "define", "impl", "impl_abstract",
           "register_autograd", "register_fake", "register_kernel", "triton_op", "wrap_triton"]

Fn = Callable[..., Any]


class CustomOpDef:
    """An operation made with `custom_op`; call it as the function."""

    def __init__(self, op: CustomOp, fn: Fn) -> None:
        self._op = op
        self.__name__ = getattr(fn, "__name__", op.name)
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._op(*args, **kwargs)

    def register_fake(self, fn: Fn, /) -> Fn:
        """Accepted, and not needed: shapes are those of what is recorded."""
        return fn

    def register_kernel(self, device_types: Any, fn: Fn | None = None, /) -> Any:
        """Let the operation compute `fn` on the CPU; kernels for other devices are not used."""
        return register_kernel(self._op.qualname, device_types, fn)

    def register_autograd(self, backward: Fn, /, *, setup_context: Fn | None = None) -> None:
        """Let `backward(ctx, *grads)` be the gradient, with what `setup_context(ctx, inputs,
        output)` keeps."""
        register_autograd(self._op.qualname, backward, setup_context=setup_context)

    def register_vmap(self, func: Fn | None = None) -> Any:
        """Accepted, and not needed: what is recorded is mapped."""
        return func if func is not None else lambda fn: fn

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._op.qualname})>"


def custom_op(name: str, fn: Fn | None = None, /, *, mutates_args: str | Iterable[str] = (),
              device_types: Any = None, schema: str | None = None, tags: Any = None) -> Any:
    """A function (or the decorator of one) as the operation `name`, 'mylibrary::myop'.

    Without `register_autograd` its gradient is that of what it records.  ValueError for a name
    of another form.
    """
    def decorate(function: Fn) -> CustomOpDef:
        op = _define(name)
        op.fn, op.backward, op.setup_context, op._function = function, None, None, None
        return CustomOpDef(op, function)
    return decorate if fn is None else decorate(fn)


def triton_op(name: str, fn: Fn | None = None, /, **kwargs: Any) -> Any:
    """NotImplementedError: Triton's kernels need a GPU."""
    raise NotImplementedError(f"{name}: Triton's kernels need a GPU, and facula computes on the "
                              "CPU; write the operation with tensors")


def wrap_triton(kernel: Any, /) -> Any:
    """NotImplementedError: Triton's kernels need a GPU."""
    raise NotImplementedError("Triton's kernels need a GPU, and facula computes on the CPU")


def _op_name(op: Any) -> str:
    if isinstance(op, str):
        return op
    found: str = (op._op if isinstance(op, CustomOpDef) else op).qualname
    return found


def register_fake(op: Any, func: Fn | None = None, /, *, lib: Any = None, _stacklevel: int = 1,
                  allow_override: bool = False) -> Any:
    """Accepted, and not needed: shapes are those of what is recorded."""
    return func if func is not None else lambda fn: fn


impl_abstract = register_fake


def register_kernel(op: Any, device_types: Any, func: Fn | None = None, /, *, lib: Any = None
                    ) -> Any:
    """Let the operation compute `func` on the CPU; kernels for other devices are not used."""
    kinds = [device_types] if isinstance(device_types, str) or device_types is None \
        else list(device_types)

    def register(fn: Fn) -> Fn:
        if any([k in (None, "cpu", "default") for k in kinds]):
            _define(_op_name(op)).fn = fn
        return fn
    return register if func is None else register(func)


def register_autograd(op: Any, backward: Fn, /, *, setup_context: Fn | None = None,
                      lib: Any = None) -> None:
    """Let `backward(ctx, *grads)` be the gradient of an operation, with what
    `setup_context(ctx, inputs, output)` keeps in `ctx`."""
    found = _define(_op_name(op))
    found.backward, found.setup_context, found._function = backward, setup_context, None


def define(qualname: str, schema: str, *, lib: Any = None, tags: Any = ()) -> None:
    """Declare an operation, to be given its function by `impl`."""
    _define(qualname)


def impl(qualname: str, types: Any, func: Fn | None = None, *, lib: Any = None) -> Any:
    """Give a declared operation its function; types are 'cpu', 'default' or others, which are
    not used."""
    kinds = [types] if isinstance(types, str) else list(types)
    lower = ["default" if k.lower().startswith("composite") else k.lower() for k in kinds]
    return register_kernel(qualname, lower, func)


class Library:
    """A namespace whose operations are declared with `define` and given functions with `impl`."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = "") -> None:
        if kind not in ("DEF", "IMPL", "FRAGMENT"):
            raise ValueError(f"Unsupported kind: {kind}")
        self.ns, self.kind, self.dispatch_key = ns, kind, dispatch_key

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """Declare the operation of a schema such as 'myop(Tensor x) -> Tensor'; its name."""
        name = schema.partition("(")[0].strip()
        _define(f"{self.ns}::{name}")
        return name

    def impl(self, op_name: Any, fn: Fn, dispatch_key: str = "", *, with_keyset: bool = False,
             allow_override: bool = False) -> None:
        """Give the operation its function, unless it is for another device."""
        name = _op_name(op_name)
        name = name if "::" in name else f"{self.ns}::{name}"
        impl(name, dispatch_key or self.dispatch_key or "default", fn)
