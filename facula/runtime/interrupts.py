"""Ctrl-C waits while values are being given their memory.

KeyboardInterrupt may be raised between any two instructions.  In the middle of a flush it would
lose values: a program has run, its inputs are overwritten, and nobody has been handed its
results.  Whoever stops training in a notebook would lose the model.  So a section that must come
to its end holds the interrupt back, and it is raised right after; a second one is not held back,
so that nothing hangs.

Signals are Python's own, and are handled in the main thread only; elsewhere there is nothing to
hold.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

try:
    # `signal.signal` makes an enum of everything it is given and returns, which costs more than
    # recording twenty operations.
    from _signal import SIGINT, getsignal, signal  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from signal import SIGINT, getsignal, signal

__all__ = ["hold", "release"]

Handler = Callable[[int, Any], Any]

_ident = threading.get_ident
_main = threading.main_thread().ident
_previous: Handler | None = None        # whose turn it is after the section; None outside of one
_came: tuple[int, Any] | None = None    # what the handler will be called with then


def _note(number: int, frame: Any) -> Any:
    global _came
    if _came is None:
        _came = number, frame
        return None
    handler, _came = _previous, None
    return handler(number, frame) if handler is not None else None


def hold() -> bool:
    """Hold SIGINT back from here on; whether there is anything to `release`.

    To be used as `held = hold()`, then `try`, and `if held: release()` in its `finally`.
    """
    global _previous
    if _previous is not None or _ident() != _main:
        return False
    handler = getsignal(SIGINT)
    if not callable(handler):           # ignored, or it ends the process, or it is not Python's
        return False
    try:
        signal(SIGINT, _note)           # an interrupt that is due is raised here
    except ValueError:                  # a subinterpreter has no signals
        return False
    _previous = handler
    return True


def release() -> None:
    """End the section.  Raises what the handler raises if an interrupt was held back."""
    global _previous, _came
    handler = _previous
    if handler is None:
        return
    signal(SIGINT, handler)
    _previous = None
    came, _came = _came, None
    if came is not None:
        handler(*came)
