"""The program that runs in the background, if one does.

The program of a training step is handed to the pool while Python goes on to record the next one.
There is at most one such flight.  Whoever is about to look at memory, or to launch another
program, lands it first: `finish` helps to compute what is left, and raises what went wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from facula.runtime.interrupts import hold, release

__all__ = ["Flight", "current", "take_off", "finish"]


class Flight:
    """A launch under way: how to join it, what it uses, and what to do if it fails.

    join    helps to finish; returns the status word
    keep    everything whose memory the program reads or writes
    failed  called with a bad status; returns the error to raise
    """

    __slots__ = ("join", "keep", "failed")

    def __init__(self, join: Callable[[], int], keep: Any, failed: Callable[[], BaseException]):
        self.join = join
        self.keep = keep
        self.failed = failed


current: Flight | None = None
"""Looked at often and without the lock; only `take_off` and `finish` assign it."""

_lock = threading.RLock()


def take_off(flight: Flight) -> None:
    """Note that a program is under way; there must be none."""
    global current
    with _lock:
        current = flight


def finish() -> None:
    """Wait for the program in the background.  Raises its error, once.

    Its memory is held until it has ended: an interrupt waits.
    """
    global current
    held = hold()
    try:
        with _lock:
            flight = current
            if flight is None:
                return
            try:
                status = flight.join()
            finally:
                current = None
        if status:
            raise flight.failed()
    finally:
        if held:
            release()


def renew() -> None:
    """In a forked child, which has no background."""
    global current, _lock
    current = None
    _lock = threading.RLock()
