"""Kernels are linked where address space is short of holes."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = '''
import ctypes
from facula.runtime import jit

TEXT = """@c = private constant [4 x i32] [i32 7, i32 8, i32 9, i32 10]
define i32 @k(i64 %i) { %p = getelementptr i32, ptr @c, i64 %i %v = load i32, ptr %p ret i32 %v }
"""
code = jit.compile_text(TEXT)
jit._link([("k", "", code)])

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
NOTHING, PRIVATE_ANONYMOUS_UNRESERVED = 0, 0x4022


def take(size):
    at = libc.mmap(None, size, NOTHING, PRIVATE_ANONYMOUS_UNRESERVED, -1, 0)
    assert at and at != ctypes.c_void_p(-1).value, ctypes.get_errno()
    return at


wall = take(8 << 30)                       # an array of 8 GiB, and no hole above it is left
for size in (1 << 24, 1 << 20, 1 << 16, 1 << 12):
    while (last := take(size)) > wall:
        above = last
libc.munmap(above, 1 << 12)                # but one, of one page
kernels = [jit._link([("k", "", code)])[0] for _ in range(8)]
for kernel in kernels:
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_long)(kernel.address)(2) == 9
print("linked", min(k.address for k in kernels) < wall < above)
'''


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="maps memory as Linux does")
def test_code_is_not_torn_from_its_constants() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True,
                          timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["linked", "True"]
