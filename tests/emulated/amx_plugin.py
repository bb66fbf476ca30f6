"""`python -m pytest -p tests.emulated.amx_plugin ...`: tests with products by tile registers.

From here on this process is one on a processor with AMX (see `tests.emulated.amx`), and uses its
tile registers for bfloat16 products and convolutions of any size.  At the end it says how often,
and fails if some thread has not released its own.  On a processor that has AMX nothing is emulated.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from facula import config
from facula.runtime.amx import refusal
from tests.emulated.amx import Machine, here, patches

machine = Machine()
_native = not refusal()
_installed = nullcontext() if _native else machine.installed()


def activate() -> None:
    """Turn this process into one with tile registers."""
    reason = "" if _native else here()
    if reason:
        raise RuntimeError(reason)
    for owner, name, value in [] if _native else patches(machine):
        setattr(owner, name, value)
    from facula.codegen.convolutions import amx as convolutions
    from facula.codegen.products import amx as products
    products.LEAST = convolutions.FEWEST = 1
    config.flag.ISA = "amx"
    config.flag.INTERPRET = False


def pytest_sessionstart() -> None:
    _installed.__enter__()          # after pytest's own handler


def pytest_sessionfinish(session: Any) -> None:
    if machine.in_use:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    say = terminalreporter.write_line
    if _native:
        say("this processor's own AMX was used")
        return
    say(f"instructions of AMX that were emulated: {dict(machine.executed)}")
    if machine.in_use:
        say("FAILED: a thread's tile registers were not released")


def pytest_unconfigure() -> None:
    _installed.__exit__(None, None, None)


activate()
