"""Memory that somebody outside can write to, read where it lies.

What a graph reads of memory that NumPy shares is a copy: the array may change before the graph is
run.  Where a few rows of a table are wanted, or its sum, the copy would be nearly all of the work.
The rule:

- A call is *looking* if one of its operands is shared memory of `LARGE` bytes or more.  The memory
  itself enters the graph, and the graph is run at once, before anybody can write.
- What such a call gave is remembered by the operation and its operands' specs.  If it was less than
  a `FEW`th of the largest operand, the next call like it looks, too; else it copies, since running
  what is pending early would cost more than the copy that it saves.
- Nothing looks while results must wait (a step of an optimiser, a call that is recorded to be
  replayed, a function that is transformed) or inside the body of another operation.

Called by `facula.ops.define` alone, for operands that are new in the pending graph: recording
operations on a tensor's own memory pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula.graph import record as _record
from facula.graph.template import Table
from facula.tensor import Tensor

__all__ = ["LARGE", "FEW", "may_look", "look"]

LARGE = 1 << 20
"""Bytes of memory that are dearer to copy than a graph is to run.  A few rows of a table, doubled
and summed, take 28 us either way where the table has 64 KB, with the copy 34 and by looking 29 at
256 KB, 71 and 32 at 1 MB, 1000 and 48 at 16 MB (Zen 4).  Below 1 MB what looking saves is of the
size of what a launch costs that would otherwise have been shared."""

FEW = 16
"""An operation reads memory in place whose result is so many times smaller.  Alone, one with a
result of a quarter is quicker by looking, too (a product at 4 MB: 410 us for 690); but a large
result is likely to be the first of several that would share a loop, which an early run takes
apart."""

_results = Table(4096)


def may_look(rec: Any, head: Any, tensors: Sequence[Tensor]) -> bool:
    """Whether a call may read large memory that others write in place."""
    if rec.in_place or rec.depth or rec.patient or rec.tape is not None or rec.outer is not None:
        return False
    try:
        return bool(_results.get(_likeness(head, tensors), True))
    except TypeError:                                    # an argument that cannot be hashed
        return False


def look(rec: Any, head: Any, tensors: Sequence[Tensor], call: Callable[[], Any]) -> Any:
    """What `call` gives, recorded with memory in place of copies and run before this returns."""
    rec.in_place = True
    try:
        result = call()
    finally:
        rec.in_place = False
        _record.flush(rec)
    made = result if isinstance(result, (tuple, list)) else [result]
    least = sum([_nbytes(t) for t in made if isinstance(t, Tensor)])
    most = max([_nbytes(t) for t in tensors])
    _results.keep(_likeness(head, tensors), FEW * least <= most)
    return result


def _likeness(head: Any, tensors: Sequence[Tensor]) -> Any:
    return (head, *[t._node.spec for t in tensors])


def _nbytes(t: Tensor) -> int:
    return t._node.spec.numel * t._node.spec.dtype.itemsize
