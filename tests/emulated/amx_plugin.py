"""`python -m pytest -p tests.emulated.amx_plugin ...`: tests with bfloat16 products by tile registers.

From here on this process is one on a processor with AMX (see `tests.emulated.amx`); at the end it
is asked whether any product was computed so, and whether all tile registers were released.
"""

from __future__ import annotations

import os

from facula import config
from tests.emulated.amx import Machine, here, patches

machine = Machine()
_installed = machine.installed()


def activate() -> None:
    """Turn this process into one with tile registers."""
    reason = here()
    if reason:
        raise RuntimeError(reason)
    for owner, name, value in patches(machine):
        setattr(owner, name, value)
    from facula.codegen import amx
    amx.LEAST = int(os.environ.get("AMX_LEAST", "1"))       # small products, too
    config.flag.ISA = "amx"
    config.flag.INTERPRET = False


def pytest_sessionstart() -> None:
    _installed.__enter__()          # after pytest's own handler


def pytest_unconfigure() -> None:
    print(f"\ninstructions of AMX that were emulated: {dict(machine.executed)}")
    assert not machine.in_use, "tile registers were not released"
    _installed.__exit__(None, None, None)


activate()
