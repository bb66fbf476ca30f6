"""What a compiled program has to be for `facula.graph.flush` to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from facula.graph.spec import Step
from facula.runtime.allocator import Buffer

if TYPE_CHECKING:
    from facula.schedule.compile import Report
    from facula.schedule.resized import Again

__all__ = ["Runnable"]


class Runnable(Protocol):
    """A program made executable.

    steps, outputs  what it runs: the program's, after simplification
    run       from the leaves' buffers and numbers to the outputs' memory
    run_into  the same; outputs may use the memory that is given, for each some or None
    start, start_into  the same with a function that makes the error of a bad index: the program
              may go on in the background, and write to what has been returned; or None
    again     why and how it was compiled although one of its structure had been, or None
    """

    steps: list[Step]
    outputs: list[int]
    run: Callable[[list[Any]], list[Buffer]]
    run_into: Callable[[list[Any], Any], list[Buffer]]
    start: Callable[[list[Any], Any], list[Buffer]] | None
    start_into: Callable[[list[Any], Any, Any], list[Buffer]] | None
    again: Again | None

    @property
    def reports(self) -> Sequence[tuple[Any, Report]]:
        """The kernels that every run has, for people, each with the part that has it."""
        ...

    @property
    def nbytes(self) -> int:
        """About how much memory goes with it."""
        ...
