"""`python -m pytest -p tests.emulated.plugin ...`: tests with generated code for AArch64, emulated.

From here on this process takes itself for an AArch64 machine with one core: the generators write
for NEON, LLVM compiles for AArch64, and kernels and the driver that launches them run on
`tests.emulated.machine`.  Everything else, the schedule, the memory plan, the argument tables, is
what it is on such a machine.
"""

from __future__ import annotations

import ctypes
from typing import Any

from facula import config
from facula.runtime import jit, threads
from tests.emulated.machine import TRIPLE, Machine

machine: Machine | None = None


def _host(isa: str) -> jit.Host:
    if isa not in ("", "neon"):
        raise ValueError(f"FACULA_ISA={isa!r}: this machine is {TRIPLE}, emulated")
    import llvmlite
    import llvmlite.binding as llvm
    return jit.Host(TRIPLE, "generic", "", f"{jit.CODE_VERSION}/{llvmlite.__version__}/"
                    f"{'.'.join(map(str, llvm.llvm_version_info))}")


def _link(parts: list[tuple[str, str, bytes]]) -> list[jit.LoadedKernel]:
    assert machine is not None
    library: Any = object()
    return [jit.LoadedKernel(name, key, machine.load(data)[name], len(data), library)
            for name, key, data in parts]


class Function:
    """What `ctypes.CFUNCTYPE(...)(address)` is on the machine itself."""

    def __init__(self, address: int):
        self.address = address

    def __call__(self, *args: Any) -> int:
        assert machine is not None
        return machine.call(self.address, *[_word(a) for a in args])


def _word(argument: Any) -> int:
    """An argument as the number that is put into a register."""
    if isinstance(argument, ctypes.Array):
        return ctypes.addressof(argument)
    return getattr(argument, "value", argument) or 0


class Driver:
    """The driver's entry points; with one thread only launches are asked for."""

    def __init__(self) -> None:
        self.futex = None
        # without its pause: llvmlite reads inline assembly of the machine that it is on alone
        text = threads.driver_text(None, None)
        self._kernel = jit.compile_kernels([("facula_driver", text)], threads=1)[0]
        out = (ctypes.c_int64 * 6)()
        Function(self._kernel.address)(out)
        self.run = self.run_held = Function(out[0])
        self.rounds_per_us = 1.0


def activate() -> None:
    """Turn this process into an AArch64 machine."""
    global machine
    import llvmlite.binding as llvm
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = Machine()
    config.flag.ISA = "neon"
    config.flag.INTERPRET = False
    config.flag.NUM_THREADS = 1
    jit._host = _host
    jit._link = _link
    threads._futex_number = lambda: None
    threads.Driver = Driver  # type: ignore[misc, assignment]
    from tests.codegen import native
    native.FUNCTION = Function


activate()
