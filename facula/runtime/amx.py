"""Whether this process may multiply by tile registers (AMX), and whether that comes out right.

Three things have to hold: the processor has the instructions, and the system saves the registers
(LLVM asks CPUID and XGETBV for both); the kernel grants them to this process (Linux gives them to
those who ask: arch_prctl(2), Documentation/arch/x86/xstate.rst); and a product of whole numbers,
computed once, is exact.  What was granted holds for all threads of the process and for its
forks.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from functools import lru_cache

import numpy as np

from facula.codegen.llvm import Fn, Module
from facula.codegen.products.amx import ROWS, configure, release, tile_function
from facula.codegen.products.brgemm import OperandPlace
from facula.codegen.target import Target

__all__ = ["products_are_right", "refusal"]

_ARCH_PRCTL = 158
_REQUEST_PERMISSION = 0x1023
_TILE_DATA = 18


@lru_cache(maxsize=None)
def refusal() -> str:
    """Why tile registers are not used here, '' if they are; found out once.

    Warns if the processor has them, and multiplies wrongly.
    """
    if not sys.platform.startswith("linux"):
        return "tile registers are asked for as Linux grants them"
    from facula.runtime import jit
    features = jit.host_features()
    missing = [name for name in ("amx-tile", "amx-bf16") if not features.get(name)]
    if missing:
        return f"this processor has no {' and no '.join(missing)}"
    code = _ask()
    if code:
        return f"the kernel does not grant tile registers to this process: {os.strerror(code)}"
    if not products_are_right():
        warnings.warn("this processor's tile registers (AMX) do not multiply whole numbers exactly;"
                      " bfloat16 products are computed without them", RuntimeWarning, stacklevel=2)
        return "products by tile registers are wrong here"
    return ""


def _ask() -> int:
    """Ask the kernel for the tile registers; 0, or the error's number."""
    system = ctypes.CDLL(None, use_errno=True).syscall
    system.restype = ctypes.c_long
    done = system(ctypes.c_long(_ARCH_PRCTL), ctypes.c_long(_REQUEST_PERMISSION),
                  ctypes.c_ulong(_TILE_DATA))
    return ctypes.get_errno() if done else 0


_SIZES = ((2 * ROWS, 2 * ROWS), (ROWS + 3, ROWS + 5))
"""Register tiles that are tried: one of whole tile registers, one of cut ones."""
_STEPS, _APART = 3 * ROWS, 5 * ROWS


def _trial() -> str:
    """A function of (A, B, C): the sum of two products with all of A and B, for each of `_SIZES`
    after the other in C."""
    module = Module()
    t = Target("amx", 64, 32, tiles=True)
    fn = Fn(module, "trial", (("ptr", "a"), ("ptr", "b"), ("ptr", "c")), attrs=t.attributes)
    a = OperandPlace("a", (), _APART, 1, _APART)
    b = OperandPlace("b", (), 1, 2 * ROWS, 1)
    configure(fn, *_SIZES[0])
    for k, size in enumerate(_SIZES):
        name = tile_function(module, f"trial_{k}", t, size, a, b, 2 * ROWS, _SIZES[0])
        c = fn.gep("float", "%c", k * (2 * ROWS) ** 2)
        for first in ("true", "false"):
            fn.do(f"call void @{name}(ptr %a, ptr %b, ptr {c}, i64 {_STEPS}, i1 {first})")
    release(fn)
    fn.finish()
    return module.text()


def _short(x: np.ndarray) -> np.ndarray:
    """Small whole numbers as the bits of bfloat16."""
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def products_are_right() -> bool:
    """Whether products of whole numbers come out exactly as they must, on this thread."""
    from facula.runtime import jit
    kernel = jit.link_alone("trial", _trial())
    edge, k = 2 * ROWS, 2 * _STEPS
    number = np.arange(edge * k)
    x = (number * 7 % 17 - 8).reshape(edge, k)
    y = (number * 11 % 19 - 9).reshape(k, edge)
    a = np.full((edge, 2 * _APART), 0x7FC0, np.uint16)          # NaN beside A and C
    a[:, :k] = _short(x)
    b = np.ascontiguousarray(_short(y).reshape(k // 2, 2, edge).swapaxes(1, 2))
    c = np.full((len(_SIZES), edge, edge), np.nan, np.float32)
    want = c.copy()
    for out, (rows, cols) in zip(want, _SIZES, strict=True):
        out[:rows, :cols] = 2 * (x[:rows] @ y[:, :cols])
    address = ctypes.c_void_p
    ctypes.CFUNCTYPE(None, address, address, address)(kernel.address)(
        a.ctypes.data, b.ctypes.data, c.ctypes.data)
    return bool(np.array_equal(c, want, equal_nan=True))
