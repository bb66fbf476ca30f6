"""Memory on large pages, cut into blocks.

A processor looks up where a page lies before it reads from it, and remembers some thousand pages
at most.  On pages of 4 KB that is a few megabytes, less than the weights of one layer; and what
fetches memory ahead of its use stops at the end of a page.  The system gives pages of 2 MB only
where a mapping covers one whole.  So blocks that are worth it are cut from regions that begin on
such a page, one after another, and not mapped each by itself.

Whole large pages of a block that is freed go back to the system at once, the mapping when nothing
of its region is left.
"""

from __future__ import annotations

import mmap
import os
import threading
from bisect import bisect_left
from collections import deque

import numpy as np

__all__ = ["LEAST", "PAGE", "REGION", "Place", "take"]

PAGE = 2 << 20
"""Bytes of a large page on the processors that have them; where they are larger, or there are
none, a region is memory like any other."""

REGION = 32 << 20
"""Bytes of a region; a block that would fill half of one has a region of its own."""

LEAST = 128 << 10
"""Smaller blocks are the C library's business."""

_UNIT = 64


class Region:
    """A mapping and what is free in it.  Changed by who holds the lock only."""

    def __init__(self, size: int):
        self.map = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.map.madvise(mmap.MADV_HUGEPAGE)
        start = np.frombuffer(self.map, np.uint8, 1).__array_interface__["data"][0]
        self.begin: int = -start % PAGE         # in bytes from the start of the mapping
        self.size = size
        # Free runs, by where they begin and end; no two touch.
        self.begins, self.ends = [self.begin], [self.begin + size]

    def take(self, size: int) -> int | None:
        """Where the first run that is large enough begins; it is taken."""
        for i, (begin, end) in enumerate(zip(self.begins, self.ends, strict=True)):
            if end - begin >= size:
                if end - begin == size:
                    del self.begins[i], self.ends[i]
                else:
                    self.begins[i] = begin + size
                return begin
        return None

    def give(self, begin: int, size: int) -> None:
        """A block is free again; large pages on which there is nothing else are the system's."""
        end = begin + size
        i = bisect_left(self.begins, begin)
        first, last = begin, end
        if i < len(self.begins) and self.begins[i] == end:
            last = self.ends[i]
            del self.begins[i], self.ends[i]
        if i and self.ends[i - 1] == begin:
            i -= 1
            first = self.begins[i]
            del self.begins[i], self.ends[i]
        self.begins.insert(i, first)
        self.ends.insert(i, last)
        # of the free run around it, the pages that had something of this block
        base = self.begin
        low = max(-(-(first - base) // PAGE), (begin - base) // PAGE)
        high = min((last - base) // PAGE, -(-(end - base) // PAGE))
        if low < high and not self.empty:
            self.map.madvise(mmap.MADV_DONTNEED, base + low * PAGE, (high - low) * PAGE)

    @property
    def empty(self) -> bool:
        """Nothing is taken."""
        return self.begins == [self.begin] and self.ends == [self.begin + self.size]


class _Regions:
    """All regions.  Blocks are freed on any thread and in the middle of anything, this code
    included; so who frees one leaves a note, which takes no lock, and whoever has the lock
    attends to the notes."""

    def __init__(self) -> None:
        self.all: list[Region] = []
        self.notes: deque[tuple[Region, int, int]] = deque()
        self.lock = threading.Lock()

    def take(self, size: int) -> tuple[Region, int]:
        with self.lock:
            self._attend()
            if size <= REGION // 2:
                for region in self.all:
                    if region.size == REGION:
                        begin = region.take(size)
                        if begin is not None:
                            return region, begin
            region = Region(REGION if size <= REGION // 2 else size)
            self.all.append(region)
            begin = region.take(size)
            assert begin is not None
            return region, begin

    def give(self, region: Region, begin: int, size: int) -> None:
        self.notes.append((region, begin, size))
        while self.notes and self.lock.acquire(blocking=False):
            try:
                self._attend()
            finally:
                self.lock.release()

    def _attend(self) -> None:
        while self.notes:
            region, begin, size = self.notes.popleft()
            region.give(begin, size)
            if region.empty:
                self.all.remove(region)


_regions = _Regions()
_there = hasattr(mmap, "MADV_HUGEPAGE")
if hasattr(os, "register_at_fork"):
    # A child is to find no region that another thread was in the middle of changing.
    os.register_at_fork(before=_regions.lock.acquire, after_in_parent=_regions.lock.release,
                        after_in_child=_regions.lock.release)


class Place:
    """Where a block lies in its region."""

    __slots__ = ("region", "begin", "size")

    def __init__(self, region: Region, begin: int, size: int):
        self.region, self.begin, self.size = region, begin, size

    def free(self) -> None:
        """Nothing refers to the block any more; may be called from a finaliser."""
        _regions.give(self.region, self.begin, self.size)


def take(size: int) -> tuple[np.ndarray, Place] | None:
    """A block of `size` bytes, aligned to 64, as an array of bytes, and its place, to be freed when
    the array is gone.  None where large pages are not to be had or the block is too small."""
    if size < LEAST or not _there:
        return None
    size = (size + _UNIT - 1) // _UNIT * _UNIT
    try:
        region, begin = _regions.take(size)
    except OSError:             # NumPy says it better when there is no memory left
        return None
    # Not a part of another array: what is made of this one then refers to it and not to the whole.
    return np.frombuffer(region.map, np.uint8, size, begin), Place(region, begin, size)
