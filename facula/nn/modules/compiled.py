"""The module that `facula.compile(module)` returns."""

from __future__ import annotations

from typing import Any

from facula.nn.modules.module import Module

__all__ = ["CompiledModule"]


class CompiledModule(Module):
    """A module whose calls are captured; everything else is the module's that was given.

    As in PyTorch that one is the child `_orig_mod`, which names in `state_dict()` begin with.
    """

    def __init__(self, module: Module, call: Any):
        super().__init__()
        self._orig_mod = module
        self.__dict__["_call"] = call
        self.__dict__["training"] = module.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own call, replayed where it safely can be."""
        return self.__dict__["_call"](*args, **kwargs)

    def explain(self) -> str:
        """How the calls went; see `facula.compile`."""
        text: str = self.__dict__["_call"].explain()
        return text

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if "_orig_mod" not in modules:
                raise
            return getattr(modules["_orig_mod"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        modules = self.__dict__.get("_modules", {})
        if "_orig_mod" in modules and name != "training":
            setattr(modules["_orig_mod"], name, value)
        else:
            super().__setattr__(name, value)
