"""An AArch64 processor in this process: Unicorn's, over this process' own memory.

Object files that LLVM has made for AArch64 are laid into memory here, their relocations applied as
the AArch64 ELF ABI has them (ARM IHI 0056, section 5.7), and `Machine.call` runs a function of
theirs.  Whatever memory of the process the code reaches for is mapped at the address it has, so
buffers, argument tables and descriptors are the very ones that native code would be given.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import threading
from bisect import bisect
from typing import Any, NamedTuple

import unicorn
from unicorn import arm64_const as arm

TRIPLE = "aarch64-unknown-linux-gnu"
CODE_BYTES = 96 << 20           # a branch reaches 128 MiB
STACK_BYTES = 16 << 20
PAGE = mmap.PAGESIZE
LARGEST_PIECE = 64 << 20
_WHERE_CALLS_END = 0x1000

SUPPORT = """
define void @memcpy(ptr %to, ptr %from, i64 %n) "no-builtins" {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %j, %body ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %out
body:
  %a = getelementptr i8, ptr %from, i64 %i
  %b = getelementptr i8, ptr %to, i64 %i
  %v = load volatile i8, ptr %a
  store i8 %v, ptr %b
  %j = add i64 %i, 1
  br label %head
out:
  ret void
}
define void @memset(ptr %to, i32 %value, i64 %n) "no-builtins" {
entry:
  %v = trunc i32 %value to i8
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %j, %body ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %out
body:
  %b = getelementptr i8, ptr %to, i64 %i
  store volatile i8 %v, ptr %b
  %j = add i64 %i, 1
  br label %head
out:
  ret void
}
"""
"""All that generated code may ask of a library: what LLVM makes of loops that copy and fill."""


class Section(NamedTuple):
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


def _sections(data: bytes) -> list[Section]:
    start, = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    raw = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
    text = raw[names][4]

    def name(at: int) -> str:
        return data[text + at:data.index(b"\0", text + at)].decode()

    return [Section(name(r[0]), r[1], r[2], r[4], r[5], r[6], r[7], max(r[8], 1)) for r in raw]


class Machine:
    """One core with its stack, and the code that has been laid into its memory."""

    def __init__(self) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self._mapped: list[tuple[int, int]] = []
        self._pieces: list[Any] = []
        self._lock = threading.RLock()
        self._code = self._at = self._take(CODE_BYTES)
        self._stack = self._take(STACK_BYTES) + STACK_BYTES - 256
        self._library: dict[str, int] = {}
        self._got: dict[int, int] = {}
        self._outside = ""
        self.calls = 0
        self.uc.hook_add(unicorn.UC_HOOK_MEM_READ_UNMAPPED | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED,
                         self._unmapped)

    def _take(self, nbytes: int) -> int:
        piece = mmap.mmap(-1, nbytes)
        self._pieces.append(piece)
        address = ctypes.addressof(ctypes.c_char.from_buffer(piece))
        self.uc.mem_map_ptr(address, nbytes, unicorn.UC_PROT_ALL, address)
        self._mapped = sorted([*self._mapped, (address, address + nbytes)])
        return address

    # -- memory
    def _unmapped(self, _uc: Any, _access: int, address: int, size: int, *_: Any) -> bool:
        """Map what of this process' memory lies around `address` and is not mapped yet."""
        for at in {address, address + size - 1}:
            if not self._map(at):
                self._outside = f"{size} bytes at {address:#x} are no memory of this process"
                return False
        return True

    def _map(self, address: int) -> bool:
        where = bisect(self._mapped, (address, 1 << 64))
        low = self._mapped[where - 1][1] if where else 0
        if low > address:
            return True
        high = self._mapped[where][0] if where < len(self._mapped) else 1 << 64
        with open("/proc/self/maps") as file:
            for line in file:
                first, last = (int(x, 16) for x in line.split(" ", 1)[0].split("-"))
                if first <= address < last:
                    near = LARGEST_PIECE // 2 // PAGE * PAGE
                    page = address // PAGE * PAGE
                    first = max(first, low, page - near)
                    last = min(last, high, page + near)
                    self.uc.mem_map_ptr(first, last - first, unicorn.UC_PROT_ALL, first)
                    self._mapped.insert(where, (first, last))
                    return True
        return False

    # -- code
    def load(self, data: bytes) -> dict[str, int]:
        """Lay an object file into memory; the addresses of its global functions."""
        with self._lock:
            sections = _sections(data)
            places: dict[int, int] = {}
            for i, s in enumerate(sections):
                if s.flags & 2:                         # SHF_ALLOC
                    self._at += -self._at % max(s.align, 64)
                    places[i] = self._at
                    if s.type != 8:                     # SHT_NOBITS
                        ctypes.memmove(self._at, data[s.offset:s.offset + s.size], s.size)
                    self._at += s.size
                    if self._at > self._code + CODE_BYTES:
                        raise MemoryError("the emulated code takes more room than a branch spans")
            values: list[int | None] = []
            names: list[str] = []
            found: dict[str, int] = {}
            table = next(s for s in sections if s.type == 2)
            strings = sections[table.link].offset
            for at in range(table.offset, table.offset + table.size, 24):
                name, info, _, index, value, _ = struct.unpack_from("<IBBHQQ", data, at)
                text = data[strings + name:data.index(b"\0", strings + name)].decode()
                names.append(text)
                values.append(places[index] + value if index in places else None)
                if index in places and info >> 4 and info & 15 == 2:
                    found[text] = places[index] + value
            for s in sections:
                if s.type == 4 and s.info in places and s.name != ".rela.eh_frame":
                    for at in range(s.offset, s.offset + s.size, 24):
                        offset, info, addend = struct.unpack_from("<QQq", data, at)
                        symbol = info >> 32
                        value = values[symbol]
                        if value is None:
                            value = self._of_library(names[symbol])
                        self._relocate(places[s.info] + offset, info & 0xFFFFFFFF,
                                       value + addend)
            return found

    def _of_library(self, name: str) -> int:
        if not self._library:
            from facula.runtime import jit
            self._library = {"": 0}
            self._library.update(self.load(jit.compile_text(SUPPORT)))
        if name not in self._library:
            raise LookupError(f"generated code calls {name}, which no AArch64 processor has "
                              "instructions for")
        return self._library[name]

    def _slot_of(self, value: int) -> int:
        """A word of the global offset table."""
        if value not in self._got:
            self._at += -self._at % 8
            ctypes.c_uint64.from_address(self._at).value = value
            self._got[value] = self._at
            self._at += 8
        return self._got[value]

    def _relocate(self, at: int, kind: int, value: int) -> None:
        word = ctypes.c_uint32.from_address(at)
        if kind == 257:                                 # ABS64
            ctypes.c_uint64.from_address(at).value = value
        elif kind in (258, 261):                        # ABS32, PREL32
            word.value = value - (at if kind == 261 else 0) & 0xFFFFFFFF
        elif kind == 260:                               # PREL64
            ctypes.c_uint64.from_address(at).value = value - at & (1 << 64) - 1
        elif kind in (282, 283):                        # JUMP26, CALL26
            word.value |= (value - at >> 2) & 0x3FFFFFF
        elif kind in (275, 311):                        # ADR_PREL_PG_HI21, ADR_GOT_PAGE
            if kind == 311:
                value = self._slot_of(value)
            pages = (value >> 12) - (at >> 12)
            word.value |= (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
        elif kind == 277:                               # ADD_ABS_LO12_NC
            word.value |= (value & 0xFFF) << 10
        elif kind in (278, 284, 285, 286, 299):         # LDST8, 16, 32, 64, 128_ABS_LO12_NC
            shift = {278: 0, 284: 1, 285: 2, 286: 3, 299: 4}[kind]
            word.value |= ((value & 0xFFF) >> shift) << 10
        elif kind == 312:                               # LD64_GOT_LO12_NC
            word.value |= ((self._slot_of(value) & 0xFFF) >> 3) << 10
        else:
            raise NotImplementedError(f"relocation {kind} of AArch64 ELF")

    # -- running
    def call(self, address: int, *args: int) -> int:
        """Call a function of integer arguments; what it leaves in x0, signed."""
        with self._lock:
            self._outside = ""
            self.calls += 1
            for i, value in enumerate(args):
                self.uc.reg_write(arm.UC_ARM64_REG_X0 + i, value & (1 << 64) - 1)
            self.uc.reg_write(arm.UC_ARM64_REG_SP, self._stack)
            self.uc.reg_write(arm.UC_ARM64_REG_X30, _WHERE_CALLS_END)
            try:
                self.uc.emu_start(address, _WHERE_CALLS_END)
            except unicorn.UcError as error:
                at = self.uc.reg_read(arm.UC_ARM64_REG_PC)
                raise RuntimeError(f"emulated code stopped at {at:#x}: {error}; {self._outside}") \
                    from None
            value = self.uc.reg_read(arm.UC_ARM64_REG_X0)
            return value - (1 << 64) if value >> 63 else value
