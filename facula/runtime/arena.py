"""The one large piece of memory for temporaries that all programs share.

What a program keeps between its kernels is needed while it runs and not after, and programs that
need much of it run one at a time anyway, on all threads.  So they share it: a second program (for
another batch size, or the same step with its optimiser's state in place) costs no memory that was
not there, and finds pages that the system has already handed out.  It is as large as the largest
of its programs needs, and goes with the last of them.
"""

from __future__ import annotations

import threading
from typing import Any

from facula.runtime.allocator import Buffer, empty

__all__ = ["Arena", "SHARED", "LEAST"]

LEAST = 1 << 20
"""Programs that need fewer bytes have memory of their own, and may run beside each other."""


class Arena:
    """Memory for one program at a time: whoever uses it holds `lock` until the program has ended.

    A program in the background is ended by `facula.runtime.flight.finish`, which the next one
    calls once it has the lock.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.buffer: Buffer | None = None
        self._needs: dict[int, int] = {}        # of each program that lives
        self._guard = threading.RLock()         # a program may end while another one enters

    def enter(self, program: Any, nbytes: int) -> None:
        """`program` will want so much."""
        with self._guard:
            self._needs[id(program)] = nbytes

    def leave(self, program: Any) -> None:
        """`program` is no more."""
        with self._guard:
            self._needs.pop(id(program), None)
            if not self._needs:
                self.buffer = None

    def address(self) -> int:
        """Where it lies now; the caller holds `lock`, and nothing runs in it."""
        with self._guard:
            most = max(self._needs.values())
            if self.buffer is None or self.buffer.nbytes < most:
                self.buffer = None              # before the larger one is taken
                self.buffer = empty(most)
            return self.buffer.ptr

    def renew(self) -> None:
        """In a forked child: locks that other threads of the parent held are not released."""
        self.lock = threading.Lock()
        self._guard = threading.RLock()


SHARED = Arena()
