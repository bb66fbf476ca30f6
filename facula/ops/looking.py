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
"""Bytes of memory that are dearer to copy than a graph is to run: a launch takes about 10 us, a
copy of so much 40 to 75 us (Zen 4).  Rows of a table, doubled and summed: at 256 KB 52 us with the
copy and 29 us by looking, at 1 MB 106 and 30, at 16 MB 2700 and 51.  Below this what looking saves
is of the size of what it costs a program that would have gone on recording."""

FEW = 16
"""An operation reads memory in place whose result is so many times smaller.  Looking also wins
where the result is a half or a quarter (at 4 MB 3 to 10 times), if nothing else is pending; but a
result that is large is likely to be the first of many that would share its loop, which an early
run takes apart."""

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
