"""How modules answer for what is not there: other devices, libraries, groups of processes.

Programs written for PyTorch ask whether there is a GPU, and settle for the CPU.  Such a module has
the names that they ask by, and every function is one of three: it answers a question (there is
none), it is without effect (there is nothing to be done), or it refuses (one would have to be
there).  The functions take whatever arguments PyTorch's take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Absent"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Absent:
    """What a module is named after and facula has not.

    module   the module's name, of which the functions made here are
    reason   why it is not there, a clause
    refusal  what to do instead, for those who use it all the same
    """

    def __init__(self, module: str, reason: str, refusal: str = ""):
        self.module, self.reason, self.refusal = module, reason, refusal

    @classmethod
    def device(cls, module: str) -> Absent:
        """The functions of a kind of device; the module is named as the device is."""
        name = module.rpartition(".")[2]
        return cls(module, "facula computes on the CPU",
                   f", and {name!r} was asked for: leave device out, or use device='cpu'")

    def _named(self, function: F, name: str, doc: str) -> F:
        function.__name__ = function.__qualname__ = name
        function.__module__, function.__doc__ = self.module, doc
        return function

    def answers(self, name: str, answer: T) -> Callable[..., T]:
        """A function that returns `answer`."""
        def function(*args: Any, **kwargs: Any) -> T:
            return answer
        function.__annotations__["return"] = None if answer is None else type(answer)
        return self._named(function, name, f"{answer}: {self.reason}.")

    def ignores(self, name: str) -> Callable[..., None]:
        """A function without effect."""
        def function(*args: Any, **kwargs: Any) -> None:
            pass
        return self._named(
            function, name, f"Without effect, as in PyTorch where there is none: {self.reason}.")

    def refuses(self, name: str) -> Callable[..., Any]:
        """A function that raises a RuntimeError."""
        def function(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"{self.reason}{self.refusal}")
        return self._named(function, name, f"Raises a RuntimeError: {self.reason}.")
