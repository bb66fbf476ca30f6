"""What the generators must know of the CPU: vector width, registers, caches.

Everything that a kernel's shape depends on is read here, so another CPU is another `Target`.
`FACULA_ISA` forces a lower instruction set (see `facula.runtime.jit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from facula import config

__all__ = ["Target", "target", "tiling"]

_KIB = 1024


@dataclass(frozen=True)
class Target:
    """One CPU as the generators see it."""

    isa: str
    vector_bytes: int
    registers: int                 # vector registers
    l1_bytes: int = 32 * _KIB
    l2_bytes: int = 512 * _KIB
    l3_bytes: int = 8 * 1024 * _KIB
    pairs: bool = False            # multiplies and adds pairs of bfloat16 (AVX512-BF16)
    tiles: bool = False            # multiplies tiles of bfloat16 (AMX)

    def lanes(self, itemsize: int) -> int:
        """Elements of `itemsize` bytes in a vector."""
        return max(self.vector_bytes // itemsize, 1)

    @property
    def converts_half(self) -> bool:
        """Whether there are instructions between half and float (else LLVM calls a library)."""
        return self.isa != "sse2"

    @property
    def attributes(self) -> str:
        """Function attributes of a kernel."""
        return f'nounwind "prefer-vector-width"="{8 * self.vector_bytes}"'

    def tile(self, vectors: int) -> int:
        """Most rows of a register tile that is `vectors` vectors wide: accumulators, one row
        of B and a spare register must fit."""
        room = self.registers - vectors - (1 if self.registers < 32 else 2)
        return max(min(room // vectors, 14 if vectors > 1 else 16), 1)


_SHAPES = {"amx": (64, 32), "avx512": (64, 32), "avx2": (32, 16), "sse2": (16, 16),
           "neon": (16, 32)}


def _size(text: str) -> int:
    text = text.strip()
    units = {"K": _KIB, "M": _KIB ** 2, "G": _KIB ** 3}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def _caches() -> dict[int, int]:
    """Data cache sizes by level, as the kernel tells them; empty where it does not."""
    found: dict[int, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if (index / "type").read_text().strip() != "Instruction":
                found[int((index / "level").read_text())] = _size((index / "size").read_text())
        except (OSError, ValueError, IndexError):
            continue
    return found


@lru_cache(maxsize=None)
def _host_isa() -> str:
    import platform

    if platform.machine().lower() in ("arm64", "aarch64"):
        return "neon"
    import llvmlite.binding as llvm
    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl"):
        from facula.runtime.amx import refusal
        return "avx512" if refusal() else "amx"
    return "avx2" if features.get("avx2") and features.get("fma") else "sse2"


def _has(feature: str) -> bool:
    import llvmlite.binding as llvm
    return bool(llvm.get_host_cpu_features().get(feature))


@lru_cache(maxsize=None)
def _target(isa: str) -> Target:
    caches = _caches()
    width, registers = _SHAPES[isa]
    return Target(isa, width, registers, caches.get(1, 32 * _KIB), caches.get(2, 512 * _KIB),
                  caches.get(3, 8 * _KIB ** 2), isa in ("avx512", "amx") and _has("avx512bf16"),
                  isa == "amx")


def target() -> Target:
    """The CPU that code is generated for.  Raises ValueError for an unknown FACULA_ISA."""
    isa = config.flag.ISA or _host_isa()
    if isa not in _SHAPES:
        raise ValueError(f"FACULA_ISA={isa!r}: known are {', '.join(_SHAPES)}")
    return _target(isa)


_CARRIED = 512 * 1024
"""Bytes of the stack that a recurrence may take for what it carries from step to step."""


def tiling(n: int, weight: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """(rows, tiles) into which a recurrence of n rows with this weight [G H, H] is split.

    A weight that does not stay in the second cache is read again in each step of each tile.
    """
    packed = weight[0] * weight[1] * itemsize
    unit = 12 if packed <= target().l2_bytes // 2 else 24
    tiles = 1 << max((n // unit).bit_length() - 1, 0)    # a power of two: threads get as much each
    rows = min(-(-n // tiles), max(_CARRIED // (weight[1] * itemsize), 1))
    return rows, -(-n // rows)
