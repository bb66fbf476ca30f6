"""`facula profile script.py`: runs a program and says where its time went."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Enter the subcommand."""
    parser = commands.add_parser(
        "profile", help="run a script; its kernels with time, rates and lines",
        description="Run a Python script and print its kernels: time, GB/s, GFLOP/s, share of "
                    "what the machine could do, and the lines they come from.  Options of facula "
                    "stand before the script, the script's own after it.")
    parser.add_argument("--trace", metavar="FILE",
                        help="also write a trace for chrome://tracing or ui.perfetto.dev")
    parser.add_argument("--sort", choices=("time", "calls", "flops", "bytes"), default="time")
    parser.add_argument("--rows", type=int, default=30, metavar="N", help="kernels to print")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the script as `python script` would; the table follows its own output."""
    from facula.profiler import profile
    if not os.path.isfile(args.script):
        print(f"facula profile: there is no file {args.script!r}", file=sys.stderr)
        return 2
    status = 0
    kept = sys.argv, sys.path[0]
    sys.argv = [args.script, *args.arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(args.script))
    found = profile()
    try:
        with found:
            runpy.run_path(args.script, run_name="__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    finally:
        sys.argv, sys.path[0] = kept
        sys.stdout.flush()
        if found.launches or found.interpretations:
            print(found.table(args.sort, args.rows))
        else:
            print("facula profile: the script ran nothing")
        if args.trace:
            found.export_chrome_trace(args.trace)
            print(f"trace: {args.trace}")
    return status
