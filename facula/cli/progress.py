"""A progress bar in one line of text."""

from __future__ import annotations

import sys
import time
from typing import IO

__all__ = ["Bar"]

_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Bar:
    """Draws `label |████    | text` over itself, at most ten times a second.

    Where the output is no terminal (a file, a log) only the last state of each bar is written,
    on a line of its own.
    """

    def __init__(self, total: int, label: str = "", *, width: int = 24,
                 stream: IO[str] | None = None, every: float = 0.1):
        self.total = max(total, 1)
        self.label = label
        self.width = width
        self.stream = sys.stderr if stream is None else stream
        self.every = every
        self.live = self.stream.isatty()
        self._last = 0.0
        self._length = 0

    @property
    def due(self) -> bool:
        """Is it time to draw again?  Ask before working out what to write."""
        return self.live and time.perf_counter() - self._last >= self.every

    def line(self, done: int, text: str = "") -> str:
        """The bar with `done` of `total` full, as a line without an end."""
        eighths = round(8 * self.width * min(done / self.total, 1.0))
        full, rest = divmod(eighths, 8)
        bar = "█" * full + (_EIGHTHS[rest] if rest else "")
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        try:
            bar.encode(encoding)
        except UnicodeEncodeError:
            bar = "#" * full
        return f"{self.label} |{bar:<{self.width}}| {text}"

    def draw(self, done: int, text: str = "") -> None:
        """Draw the bar over what it drew before."""
        if not self.live:
            return
        line = self.line(done, text)
        self.stream.write("\r" + line + " " * max(self._length - len(line), 0))
        self.stream.flush()
        self._length = len(line)
        self._last = time.perf_counter()

    def close(self, text: str = "") -> None:
        """Draw the full bar and go to the next line."""
        line = self.line(self.total, text)
        pad = " " * max(self._length - len(line), 0)
        self.stream.write(("\r" if self.live else "") + line + pad + "\n")
        self.stream.flush()
