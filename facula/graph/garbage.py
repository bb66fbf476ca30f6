"""Python's collector of cycles waits while a graph is recorded, taken apart or run.

It walks through all objects whenever a quarter more have come to last.  A large graph that is new
makes that many in one backward pass, all of them in use and none in a cycle, and the walks find
nothing; they took a third of the time of programs whose every graph is another one.  What waits is
made up for afterwards, for the objects that are still there.
"""

from __future__ import annotations

from gc import disable as pause
from gc import enable as resume
from gc import isenabled as collects

__all__ = ["collects", "pause", "resume"]

# To be used as `waits = collects()`, then `try`, `pause()` in it, and `if waits: resume()` in its
# `finally`: an interrupt may come between any two of them.  The lock of recording is held, so no
# two threads do so in turn.
