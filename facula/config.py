"""Every environment flag there is, in one table.

A flag is read from the environment once, when this module is first imported, and is an attribute
of `flag` after that: `config.flag.DEBUG` is FACULA_DEBUG.  Tests and programs may set the
attribute; `override` does so for a `with` block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

__all__ = ["Flag", "FLAGS", "flag", "override", "describe", "cache_dir"]


class Flag(NamedTuple):
    """One row of the table; the environment variable is FACULA_ and the name."""

    name: str
    default: Any
    type: type
    doc: str


FLAGS: tuple[Flag, ...] = (
    Flag("DEBUG", 0, int,
         "how much to print on stderr: 1 programs as they are compiled, with the time; 2 also "
         "their kernels; 3 also graphs and schedules; 4 also LLVM; 5 also assembly"),
    Flag("JIT", True, bool,
         "0 runs every program on the NumPy interpreter and compiles nothing"),
    Flag("CHECK_COMPILE", 0, int,
         "k runs every k-th replay of a compiled function also as it is, and raises if they "
         "differ"),
    Flag("INTERPRET", True, bool,
         "0 compiles every program at first sight; 1 leaves the first runs of cheap ones to the "
         "interpreter"),
    Flag("ISA", "", str,
         "use a lower instruction set than this machine has: amx, avx512, avx2, sse2, neon; empty "
         "means all that the processor offers"),
    Flag("WINOGRAD", True, bool,
         "0 computes 3x3 convolutions in float32 by plain sums, which is slower and two to four "
         "times as exact"),
    Flag("LAYOUT", True, bool,
         "0 leaves all values in the order that the user has, where convolutions would keep their "
         "channels in blocks"),
    Flag("NUM_THREADS", 0, int,
         "threads that share a program's work; 0 means as many as CPU affinity and the cgroup's "
         "quota allow"),
    Flag("SPIN_US", 40, int,
         "microseconds that a worker without work watches for more before it sleeps"),
    Flag("CACHE", True, bool,
         "0 neither reads nor writes the machine code cache on disk"),
    Flag("CACHE_DIR", "", str,
         "where the machine code cache lives; empty means facula under XDG_CACHE_HOME or "
         "~/.cache"),
    Flag("CACHE_MB", 256, int,
         "size in MiB that the cache on disk is kept under; least recently used files go first"),
)

_FALSE = ("", "0", "false", "no", "off")


def _parse(row: Flag, text: str) -> Any:
    if row.type is bool:
        return text.strip().lower() not in _FALSE
    try:
        return row.type(text.strip())
    except ValueError:
        raise ValueError(
            f"FACULA_{row.name}={text!r}: expected {row.type.__name__} ({row.doc})") from None


class _Flags:
    """The values in force; one attribute for each row of `FLAGS`."""

    DEBUG: int
    JIT: bool
    CHECK_COMPILE: int
    INTERPRET: bool
    ISA: str
    WINOGRAD: bool
    LAYOUT: bool
    NUM_THREADS: int
    SPIN_US: int
    CACHE: bool
    CACHE_DIR: str
    CACHE_MB: int
    __slots__ = tuple(row.name for row in FLAGS)

    def __init__(self) -> None:
        for row in FLAGS:
            text = os.environ.get(f"FACULA_{row.name}")
            setattr(self, row.name, row.default if text is None else _parse(row, text))

    def __repr__(self) -> str:
        return " ".join(f"FACULA_{row.name}={getattr(self, row.name)!r}" for row in FLAGS)


flag = _Flags()


@contextmanager
def override(**values: Any) -> Iterator[None]:
    """Set flags inside a `with` block: `with override(DEBUG=2): ...`."""
    before = {name: getattr(flag, name) for name in values}
    try:
        for name, value in values.items():
            setattr(flag, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(flag, name, value)


def describe() -> str:
    """The table as text: name, type, default and meaning of each flag."""
    lines = []
    for row in FLAGS:
        default = repr(row.default) if row.type is str else str(int(row.default))
        lines.append(f"FACULA_{row.name} ({row.type.__name__}, default {default}): {row.doc}")
    return "\n".join(lines)


def cache_dir() -> str:
    """The folder of the machine code cache; it may not exist yet."""
    if flag.CACHE_DIR:
        return os.path.expanduser(flag.CACHE_DIR)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "facula")
