"""What a contraction is: C[b, m, n] = sum over k of A[b, m, k] * B[b, k, n], any strides; and what
follows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn

__all__ = ["Contraction", "Emission", "Epilogue", "crowded"]

@dataclass(frozen=True)
class Contraction:
    """A batched matrix product with static shapes and element strides.

    `a_strides` is (batch..., m, k), `b_strides` (batch..., k, n), `c_strides` (batch..., m, n);
    0 repeats an element (not in C), negative strides are not served.  `accumulate_dtype` is the
    dtype of the sums and of the scratch tile that an epilogue reads; '' chooses float32 for
    float16 and bfloat16 and `dtype` for all else.  The offsets say at which element of its operand
    each matrix begins.  Of 'm', 'n' and 'k' those in `varies` will be others in the next program:
    the kernels are written so that their code is the same but for its numbers.
    """

    dtype: str
    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    a_strides: tuple[int, ...]
    b_strides: tuple[int, ...]
    c_strides: tuple[int, ...]
    accumulate_dtype: str = ""
    a_offset: int = 0
    b_offset: int = 0
    varies: frozenset[str] = frozenset()

    @property
    def sums(self) -> str:
        """The dtype of the accumulators."""
        if self.accumulate_dtype:
            return self.accumulate_dtype
        return "float32" if self.dtype in ("float16", "bfloat16") else self.dtype


class Epilogue(Protocol):
    """What happens to a finished tile.

    `extras` is how many ('extra', i) operands the kernel gets after its own.  `emit` writes
    code that reads sums at scratch_ptr[i*scratch_ld + j] for i < rows, j < cols (both int or
    an i64 value), element C[batch_indices, m0 + i, n0 + j], and stores what it makes of them.
    Before `emit`, `epilogue.operands` is set to the pointers (LLVM values) of the extras known
    by then.  `ask` may be called before the sums of a tile are made, to fetch what `emit` will
    read.  An epilogue may also add operands of its own while it is written: `extras` is read
    again at the end, and operand number 2 + i of the kernel is its ('extra', i).
    """

    @property
    def extras(self) -> int: ...

    operands: list[str]

    def ask(self, fn: Fn, m0: Any, n0: Any, rows: Any, cols: Any,
            batch_indices: tuple[Any, ...]) -> None: ...

    def emit(self, fn: Fn, m0: Any, n0: Any, rows: Any, cols: Any, scratch_ptr: str,
             scratch_ld: int, batch_indices: tuple[Any, ...]) -> None: ...


def crowded(row: int) -> bool:
    """Whether rows of so many bytes lie in the same few sets of a first cache, so that a register
    tile's rows of an operand push each other out."""
    return row >= 2048 and row % 512 == 0


@dataclass
class Emission:
    """Kernels by phase, and the temporaries (name, bytes) that pass between phases."""

    phases: list[list[KernelDraft]]
    temporaries: list[tuple[str, int]] = field(default_factory=list)
