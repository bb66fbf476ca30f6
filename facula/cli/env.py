"""`facula env`: what there is to know about this installation when something goes wrong."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "facts"]

_PACKAGES = ("facula", "numpy", "llvmlite", "ml_dtypes", "safetensors", "pillow")


def add_parser(commands: Any) -> None:
    """Enter the subcommand."""
    parser = commands.add_parser("env", help="versions, processor, threads, cache and flags")
    parser.set_defaults(run=run)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def facts() -> list[tuple[str, str]]:
    """Name and value of each line that `facula env` prints."""
    from facula import config
    from facula.codegen.target import target
    from facula.runtime.amx import refusal
    from facula.runtime.jit import host
    from facula.runtime.threads import available_threads, get_num_threads

    cpu, machine = target(), host()
    rows = [(name, _version(name)) for name in _PACKAGES]
    rows += [
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("system", platform.platform()),
        ("processor", _processor()),
        ("code for", f"{machine.triple} {machine.cpu}"),
        ("instruction set", f"{cpu.isa}, vectors of {8 * cpu.vector_bytes} bits, "
                            f"{cpu.registers} registers"),
        ("tile registers", "used" if cpu.tiles else
                           f"not used: {refusal() or 'FACULA_ISA is ' + cpu.isa}"),
        ("caches", f"L1 {cpu.l1_bytes >> 10} KiB, L2 {cpu.l2_bytes >> 10} KiB, "
                   f"L3 {cpu.l3_bytes >> 10} KiB"),
        ("threads", f"{get_num_threads()} used, {available_threads()} allowed, "
                    f"{os.cpu_count()} processors"),
        ("cache", config.cache_dir()),
    ]
    rows += [(f"FACULA_{row.name}", f"{getattr(config.flag, row.name)!r}  ({row.doc})")
             for row in config.FLAGS]
    return rows


def run(args: argparse.Namespace) -> int:
    """Print the facts, aligned."""
    rows = facts()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0
