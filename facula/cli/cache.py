"""`facula cache`: how much machine code is kept on disk, and a way to be rid of it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from facula import config

__all__ = ["add_parser", "size"]


def add_parser(commands: Any) -> None:
    """Enter the subcommand."""
    parser = commands.add_parser("cache", help="the machine code kept on disk")
    parser.add_argument("action", nargs="?", choices=("info", "clear"), default="info")
    parser.set_defaults(run=run)


def size() -> tuple[int, int]:
    """How many kernels are kept, and in how many bytes."""
    count = total = 0
    for folder, _, names in os.walk(os.path.join(config.cache_dir(), "objects")):
        for name in names:
            if name.startswith("."):
                continue
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue                                 # another process has just removed it
            count += 1
    return count, total


def run(args: argparse.Namespace) -> int:
    """Print what is there; with `clear`, delete it."""
    count, total = size()
    kept = f"{count} kernels, {total / 2**20:.1f} MiB of at most {config.flag.CACHE_MB} MiB"
    if args.action == "clear":
        from facula.runtime.cache import trim
        trim(0)
        left, _ = size()
        print(f"{config.cache_dir()}: removed {count - left} of {kept}")
        return 1 if left else 0
    print(f"{config.cache_dir()}: {kept}")
    return 0
