"""Tile registers (AMX) for a processor without them: its illegal instructions, executed in Python.

The code that is tested is the machine code of a processor with AMX and runs on this one, in this
process.  Only the instructions that it does not know stop it: the kernel sends SIGILL to the
thread, and the handler here decodes what stands at the instruction pointer, does to registers and
memory what Intel's SDM says (volume 2: LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TILERELEASE,
TDPBF16PS) and goes on after it.  What the SDM calls an error ends the process, as it would there.

The handler is Python that is called by ctypes, so a thread that waits for another one in generated
code must not hold the GIL.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

SMALLEST = np.finfo(np.float32).tiny


# -- decoding
class Memory(NamedTuple):
    """base + index * scale + displacement; registers by number, `ip` for the instruction pointer
    after the instruction, None for none."""

    base: int | str | None
    index: int | None
    scale: int
    displacement: int


class Instruction(NamedTuple):
    name: str
    length: int
    tiles: tuple[int, ...] = ()             # destination first
    memory: Memory | None = None


def decode(code: bytes) -> Instruction | None:
    """The AMX instruction at the beginning of `code`; None if there is another one."""
    if len(code) < 5 or code[0] != 0xC4 or code[1] & 31 != 2 or code[2] & 0x84:
        return None                         # three bytes of VEX: map 0F38, W0, 128 bits
    r, x, b = (~code[1] >> bit & 1 for bit in (7, 6, 5))
    v, prefix = ~code[2] >> 3 & 15, code[2] & 3
    mod, reg, rm = code[4] >> 6, code[4] >> 3 & 7, code[4] & 7
    key = (code[3], prefix)
    if mod == 3:
        if key == (0x49, 0) and (reg, rm, v) == (0, 0, 0):
            return Instruction("tilerelease", 5)
        if key == (0x49, 3) and (r, rm, v) == (0, 0, 0):
            return Instruction("tilezero", 5, (reg,))
        if key == (0x5C, 2) and (r, b, v >> 3) == (0, 0, 0):
            return Instruction("tdpbf16ps", 5, (reg, rm, v))
        return None
    name = {(0x49, 0): "ldtilecfg", (0x4B, 3): "tileloadd", (0x4B, 1): "tileloaddt1",
            (0x4B, 2): "tilestored"}.get(key)
    if name is None or v or r or name == "ldtilecfg" and reg:
        return None
    memory, length = _memory(code, mod, rm, x, b)
    if name == "ldtilecfg":
        return Instruction(name, length, (), memory)
    if rm != 4 or memory.index is None:
        return None                         # rows are an index register apart
    return Instruction(name, length, (reg,), memory)


def _memory(code: bytes, mod: int, rm: int, x: int, b: int) -> tuple[Memory, int]:
    at, base, index, scale = 5, rm | b << 3, None, 1
    found: int | str | None = base
    wide = {0: 0, 1: 1, 2: 4}[mod]
    if rm == 4:
        sib = code[5]
        at, scale = 6, 1 << (sib >> 6)
        number = sib >> 3 & 7 | x << 3
        index = None if number == 4 else number
        found = sib & 7 | b << 3
        if sib & 7 == 5 and mod == 0:
            found, wide = None, 4
    elif rm == 5 and mod == 0:
        found, wide = "ip", 4
    displacement = int.from_bytes(code[at:at + wide], "little", signed=True)
    return Memory(found, index, scale, displacement), at + wide


# -- executing
class Fault(Exception):
    """What would be #UD or #GP."""


def _is(condition: bool, what: str) -> None:
    if not condition:
        raise Fault(what)


class Tiles:
    """The tile registers of one thread."""

    def __init__(self) -> None:
        self.configured = False
        self.rows = [0] * 8
        self.nbytes = [0] * 8
        self.data = np.zeros((8, 16, 64), np.uint8)

    def execute(self, instruction: Instruction, address: int, stride: int) -> None:
        """Memory operands begin at `address`, rows are `stride` apart."""
        name, tiles = instruction.name, instruction.tiles
        if name == "ldtilecfg":
            self._configure(ctypes.string_at(address, 64))
            return
        if name == "tilerelease":
            self.__init__()  # type: ignore[misc]
            return
        for t in tiles:
            _is(self.configured, "tiles are not configured")
            _is(self.rows[t] > 0 and self.nbytes[t] > 0, f"tile {t} has no rows or columns")
            _is(self.nbytes[t] % 4 == 0, f"tile {t} has rows of {self.nbytes[t]} bytes")
        first = self.data[tiles[0]]
        if name == "tilezero":
            first[:] = 0
        elif name.startswith("tileload"):
            first[:] = 0
            to, n = first.ctypes.data, self.nbytes[tiles[0]]
            for row in range(self.rows[tiles[0]]):
                ctypes.memmove(to + 64 * row, address + row * stride, n)
        elif name == "tilestored":
            origin, n = first.ctypes.data, self.nbytes[tiles[0]]
            for row in range(self.rows[tiles[0]]):
                ctypes.memmove(address + row * stride, origin + 64 * row, n)
        else:
            self._product(*tiles)

    def _configure(self, data: bytes) -> None:
        if data[0] == 0:
            self.__init__()  # type: ignore[misc]
            return
        _is(data[0] == 1, f"there is no palette {data[0]}")
        _is(data[1] == 0, "a start row is for what was interrupted")
        _is(not any(data[2:16]) and not any(data[32:48]) and not any(data[56:]),
            "reserved bytes of a configuration are not zero")
        nbytes, rows = np.frombuffer(data, np.uint16, 8, 16).tolist(), list(data[48:56])
        _is(max(nbytes) <= 64 and max(rows) <= 16, f"tiles of {rows} rows of {nbytes} bytes")
        _is(all(bool(r) == bool(n) for r, n in zip(rows, nbytes, strict=True)), "half a tile")
        self.__init__()  # type: ignore[misc]
        self.configured, self.rows, self.nbytes = True, rows, nbytes

    def _product(self, into: int, left: int, right: int) -> None:
        _is(len({into, left, right}) == 3, "a product's tiles are not three")
        m, n, k = self.rows[into], self.nbytes[into] // 4, self.nbytes[left] // 4
        _is(self.rows[left] == m and self.nbytes[right] == 4 * n and self.rows[right] == k,
            f"a product of {self.rows[left]} x {k} and {self.rows[right]} x "
            f"{self.nbytes[right] // 4} pairs into {m} x {n}")
        a = self.data[left].view(np.uint16)[:m, :2 * k].reshape(m, k, 1, 2)
        b = self.data[right].view(np.uint16)[:k, :2 * n].reshape(1, k, n, 2)
        c = self.data[into].view(np.float32)[:m, :n]
        pairs = sums_of_pairs(_floats(a), _floats(b))
        total = flush(flush(c) + flush(pairs[..., 0] + pairs[..., 1]))
        self.data[into] = 0
        self.data[into].view(np.float32)[:m, :n] = total


def flush(x: np.ndarray) -> np.ndarray:
    """Denormal numbers as zeros of their sign."""
    return np.where(np.abs(x) < SMALLEST, np.copysign(np.float32(0), x), x)


def _floats(bits: np.ndarray) -> np.ndarray:
    return flush((bits.astype(np.uint32) << 16).view(np.float32))


def sums_of_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums over k of a [m, k, 1, 2] * b [1, k, n, 2], one k after the other by multiply-adds that
    round once, to nearest, and flush denormal results."""
    product = a * b
    size = np.abs(product)
    if bool(np.all((size >= SMALLEST) & (size < np.inf) | (size == 0) & ((a == 0) | (b == 0)))):
        # A product of bfloat16 numbers within the range of float32 is one of these exactly.
        running = np.add.accumulate(product, axis=1)
        if bool(np.all((np.abs(running) >= SMALLEST) | (running == 0))):
            return running[:, -1] + np.float32(0)       # the first is added to a zero, too
    total = np.zeros((a.shape[0], *b.shape[2:]), np.float32)
    for k in range(a.shape[1]):
        exact = a[:, k].astype(np.float64) * b[:, k]
        total = flush((total + exact).astype(np.float32))
    return total


# -- the illegal instructions of this process
_NUMBERS = (13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7)     # of rax, rcx, ... in gregs
_IP, _REGISTERS = 16, 40            # index in gregs, and where these are in a ucontext_t
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """struct sigaction of Linux' C libraries on x86-64."""

    _fields_ = (("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16),
                ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p))


class Machine:
    """Tile registers for every thread of this process; `executed` counts instructions by name."""

    def __init__(self) -> None:
        self._tiles: dict[int, Tiles] = {}
        self.executed: Counter[str] = Counter()
        self.handler = _HANDLER(self._trap)
        self._known: dict[int, tuple[bytes, Instruction]] = {}

    def tiles(self) -> Tiles:
        """Those of the thread that asks."""
        return self._tiles.setdefault(threading.get_ident(), Tiles())

    @property
    def in_use(self) -> bool:
        """Whether some thread's tiles are configured."""
        return any(t.configured for t in self._tiles.values())

    def _trap(self, number: int, _info: int, context: int) -> None:
        registers = (ctypes.c_uint64 * 23).from_address(context + _REGISTERS)
        try:
            with np.errstate(all="ignore"):
                self._step(registers)
        except BaseException as error:
            if not isinstance(error, Fault):
                traceback.print_exc()
            print(f"illegal instruction at {registers[_IP]:#x}: {error}", file=sys.stderr,
                  flush=True)
            signal.signal(number, signal.SIG_DFL)       # and so it ends the process now

    def _step(self, registers: Any) -> None:
        ip = registers[_IP]
        code = ctypes.string_at(ip, 10)
        known = self._known.get(ip)
        if known is None or known[0] != code:
            found = decode(code)
            if found is None:
                raise Fault(f"{code.hex(' ')} is no instruction of AMX")
            known = self._known[ip] = code, found
        instruction = known[1]
        address = stride = 0
        memory = instruction.memory
        if memory is not None:
            address = memory.displacement
            if memory.base == "ip":
                address += ip + instruction.length
            elif memory.base is not None:
                address += registers[_NUMBERS[memory.base]]  # type: ignore[index]
            if memory.index is not None:
                stride = registers[_NUMBERS[memory.index]] * memory.scale
                stride = (stride + (1 << 63)) % (1 << 64) - (1 << 63)
            if instruction.name == "ldtilecfg":
                address += stride
            address %= 1 << 64
        self.tiles().execute(instruction, address, stride)
        self.executed[instruction.name] += 1
        registers[_IP] = ip + instruction.length

    @contextmanager
    def installed(self) -> Iterator[Machine]:
        """With tile registers."""
        library = ctypes.CDLL(None)
        action, before = _Action(), _Action()
        action.handler = ctypes.cast(self.handler, ctypes.c_void_p).value
        action.flags = 4                                # SA_SIGINFO
        if library.sigaction(int(signal.SIGILL), ctypes.byref(action), ctypes.byref(before)):
            raise OSError("sigaction refuses to handle SIGILL")
        try:
            yield self
        finally:
            library.sigaction(int(signal.SIGILL), ctypes.byref(before), None)


# -- this process as one on a processor with AMX
def here() -> str:
    """Why this machine cannot stand for one with AMX; '' if it can."""
    import platform
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        return "AMX is emulated on x86-64 under Linux"
    import llvmlite.binding as llvm
    features = llvm.get_host_cpu_features()
    if features.get("amx-tile"):
        return "this processor has AMX, and executes its instructions itself"
    if not features.get("avx2"):
        return "AMX is emulated on processors that have AVX2 at least"
    return ""


def patches(machine: Machine) -> list[tuple[Any, str, Any]]:
    """(object, name, value): what makes this process one of a processor with AMX."""
    import llvmlite.binding as llvm

    from facula.codegen import target
    from facula.runtime import jit, threads

    features = llvm.get_host_cpu_features()
    wide = features.get("avx512f") and features.get("avx512vl")
    features["amx-tile"] = features["amx-bf16"] = True
    before = jit._host

    def host(isa: str) -> jit.Host:
        own = before("")
        if isa not in ("", "amx"):
            return before(isa)
        # scheduled for the processor that has AMX, of what this one has
        return own._replace(cpu="sapphirerapids" if wide else own.cpu, features=features.flatten())

    class Driver(threads.Driver):
        """Launches never hold the GIL, which a worker needs for an illegal instruction."""

        def __init__(self) -> None:
            super().__init__()
            self.run_held = self.run

    shapes = {**target._SHAPES, "amx": target._SHAPES["avx512" if wide else "avx2"]}
    made = [(threads._driver, "run_held", threads._driver.run)] if threads._driver else []
    return [(jit, "_host", host), (jit, "host_features", lambda: features),
            (threads, "Driver", Driver), (target, "_SHAPES", shapes), *made]


@contextmanager
def emulated(patch: Callable[[Any, str, Any], None]) -> Iterator[Machine]:
    """This process on a processor with AMX, for as long as `patch` (a monkeypatch's setattr)
    holds: FACULA_ISA is amx."""
    from facula import config
    machine = Machine()
    for owner, name, value in patches(machine):
        patch(owner, name, value)
    with machine.installed(), config.override(ISA="amx"):
        yield machine
