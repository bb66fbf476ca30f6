"""The command line: `facula` or `python -m facula`, with one subcommand a file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; the process's exit status."""
    from facula.cli import cache, demo, env, profile

    parser = argparse.ArgumentParser(
        prog="facula", description="facula: deep learning in Python, compiled to machine code.")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for command in (env, cache, demo, profile):
        command.add_parser(commands)
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone (`facula env | head`); say nothing at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
