"""Operations that programs define under a name of their own: `torch.library` keeps them here.

`facula.ops.<namespace>.<name>` finds them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["CustomOp", "Namespace", "NAMESPACES", "define"]


class CustomOp:
    """An operation by name: `fn` is what it computes, `backward` its gradient if one was given."""

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.fn: Callable[..., Any] | None = None
        self.backward: Callable[..., Any] | None = None
        self.setup_context: Callable[..., Any] | None = None
        self._function: Any = None

    @property
    def qualname(self) -> str:
        """'namespace::name'."""
        return f"{self.namespace}::{self.name}"

    @property
    def default(self) -> CustomOp:
        """The operation itself, which has no overloads."""
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fn is None:
            raise NotImplementedError(f"{self.qualname} was declared and never given a function: "
                                      "register one with library.impl")
        if self.backward is None:
            return self.fn(*args, **kwargs)
        if kwargs:
            bound = inspect.signature(self.fn).bind(*args, **kwargs)
            bound.apply_defaults()
            args = bound.args
        if self._function is None:
            self._function = _function(self)
        return self._function.apply(*args)

    def __repr__(self) -> str:
        return f"<custom operation {self.qualname}>"


def _function(op: CustomOp) -> Any:
    from facula.autograd import Function, no_grad

    def forward(*args: Any) -> Any:
        assert op.fn is not None
        with no_grad():
            return op.fn(*args)

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        if op.setup_context is not None:
            # by keyword, as PyTorch calls it
            op.setup_context(ctx=ctx, inputs=inputs, output=output)

    def backward(ctx: Any, *grads: Any) -> Any:
        assert op.backward is not None
        return op.backward(ctx, *grads)

    return type(op.name, (Function,), {"forward": staticmethod(forward),
                                       "setup_context": staticmethod(setup_context),
                                       "backward": staticmethod(backward)})


class Namespace:
    """The operations of one library, as attributes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ops: dict[str, CustomOp] = {}

    def __getattr__(self, name: str) -> CustomOp:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self._ops.get(name)
        if found is None:
            raise AttributeError(f"no operation {self._name}::{name} has been defined")
        return found

    def __dir__(self) -> list[str]:
        return sorted(self._ops)


NAMESPACES: dict[str, Namespace] = {}
"""The libraries, by name."""


def define(qualname: str) -> CustomOp:
    """The operation 'namespace::name', entered if it is new.  ValueError for any other form."""
    namespace, mark, name = qualname.partition("::")
    if not mark or not namespace.isidentifier() or not name:
        raise ValueError(f"expected a name such as 'mylibrary::myop', got {qualname!r}")
    name = name.partition(".")[0]
    library = NAMESPACES.setdefault(namespace, Namespace(namespace))
    return library._ops.setdefault(name, CustomOp(namespace, name))
