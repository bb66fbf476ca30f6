"""Memory of values: 64-byte aligned, cached by size, and known by address.

A `Buffer` is the memory of one value and nothing else: shape, dtype and strides belong to whoever
holds it.  Private memory comes from free lists, so that a training step, which asks for the same
sizes again and again, pays a list pop and no system call; blocks go back when the last view of
them is gone.  Memory that NumPy owns is wrapped, not copied, and marked `shared`.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from facula.dtype import DTYPES
from facula.runtime import flight, pages

if TYPE_CHECKING:
    from facula.graph.spec import Spec

__all__ = ["Buffer", "changed", "empty", "forget", "stamped", "from_numpy_private",
           "release_cached", "cached_bytes", "taken", "together"]

ALIGNMENT = 64
"""One cache line, and one AVX-512 register."""

CACHE_BLOCK_LIMIT = 64 << 20
"""Blocks above this size go straight back to the operating system."""

CACHE_TOTAL_LIMIT = 512 << 20
"""The free lists together never hold more than this many bytes."""

Strides = tuple[int, ...]


class _FreeList(list[tuple[Any, int]]):
    """Free blocks (owner, address) of one size class."""

    __slots__ = ("size",)

    def __init__(self, size: int):
        super().__init__()
        self.size = size


class _Pool:
    """The free lists and how much they hold."""

    def __init__(self) -> None:
        self.by_class: dict[int, _FreeList] = {}
        self.by_nbytes: dict[int, _FreeList] = {}
        self.held = 0

    def list_for(self, nbytes: int) -> _FreeList:
        """The free list that serves `nbytes`; sizes are rounded up by at most a quarter, large ones
        by a thirtieth: on a large page what is not used takes memory as well."""
        if nbytes <= 512:
            size = max(64, (nbytes + 63) & ~63)
        else:
            parts = 3 if nbytes < pages.LEAST else 6
            step = max(64, 1 << ((nbytes - 1).bit_length() - parts))
            size = (nbytes + step - 1) // step * step
        found = self.by_class.setdefault(size, _FreeList(size))
        if len(self.by_nbytes) > 65536:
            self.by_nbytes.clear()
        self.by_nbytes[nbytes] = found
        return found


_POOL = _Pool()


class _Taken:
    """Bytes of all blocks there are, and the most that there were.

    Blocks come and go on any thread, and go in the middle of anything when the collector finds
    them.  So each leaves a note, which takes no lock, and whoever gets the lock adds up the notes
    in the order they were left.
    """

    def __init__(self) -> None:
        self._now = self._peak = 0
        self._notes: deque[int] = deque()
        self._lock = threading.Lock()

    def note(self, change: int) -> None:
        """There are `change` bytes more."""
        self._notes.append(change)
        self._settle(wait=False)

    def _settle(self, wait: bool) -> None:
        if not self._lock.acquire(blocking=wait):
            return                      # who has it goes on until no note is left
        try:
            while self._notes:
                self._now += self._notes.popleft()
                self._peak = max(self._peak, self._now)
        finally:
            self._lock.release()

    @property
    def now(self) -> int:
        self._settle(wait=True)
        return self._now

    @property
    def peak(self) -> int:
        self._settle(wait=True)
        return self._peak

    def restart(self) -> None:
        """The most that there were is what there is."""
        self._settle(wait=True)
        self._peak = self._now


taken = _Taken()


class _Watch(weakref.ref[Any]):
    """Tells when a block's memory is freed.

    Not a finaliser of the block: the collector of cycles runs those of all that it has found
    before it frees any, and a buffer among that gives its block to a free list, where it lives on.
    It does not look into arrays, so that a reference to one says the truth.
    """

    __slots__ = ("size", "place")

    size: int
    place: pages.Place | None


_watches: dict[int, _Watch] = {}


def _freed(watch: _Watch) -> None:
    del _watches[id(watch)]
    taken.note(-watch.size)
    if watch.place is not None:
        watch.place.free()


def _fresh(size: int) -> tuple[Any, int]:
    """A new block, from the operating system, and its first aligned address."""
    cut = pages.take(size)
    memory, place = cut if cut is not None else (np.empty(size + ALIGNMENT, np.uint8), None)
    watch = _Watch(memory, _freed)
    watch.size = size
    watch.place = place
    _watches[id(watch)] = watch
    taken.note(size)
    address: int = memory.__array_interface__["data"][0]
    return memory, (address + ALIGNMENT - 1) & -ALIGNMENT


class Buffer:
    """The memory of one value.

    ptr     address of the first element (for negative strides: not the lowest address).
    nbytes  bytes that the value's elements take when packed.
    shared  somebody outside may read or write this memory: it was given by `from_numpy` or handed
            out by `numpy()`.  A flush must not donate it silently, and may not assume it is
            unchanged since the last look.
    stamp   a number that no other content has, where something made of this one is kept; else 0.
    """

    __slots__ = ("ptr", "nbytes", "shared", "lent", "stamp", "_owner", "_home", "__weakref__")

    ptr: int
    nbytes: int
    shared: bool
    lent: int                       # ndarrays over private memory that users may still hold
    _owner: Any                     # what keeps the memory alive
    _home: _FreeList | None         # the free list the block goes back to

    def __init__(self, ptr: int, nbytes: int, owner: Any, home: _FreeList | None = None,
                 shared: bool = False):
        self.ptr = ptr
        self.nbytes = nbytes
        self.shared = shared
        self.lent = 0
        self.stamp = 0
        self._owner = owner
        self._home = home

    @staticmethod
    def of(array: np.ndarray) -> tuple[Buffer, Strides | None]:
        """Wrap an ndarray's memory without copying; (shared buffer, strides in elements).

        The strides are None for a row-major contiguous array.  `ValueError` when the memory
        cannot be addressed by whole, aligned, native elements: the caller copies then.
        """
        if not array.dtype.isnative:
            raise ValueError(f"byte order of {array.dtype} is not this machine's")
        if not array.flags.aligned:
            raise ValueError("elements are not aligned in memory")
        buffer = Buffer(array.__array_interface__["data"][0], array.nbytes, array, None, True)
        if array.flags.c_contiguous:
            return buffer, None
        itemsize = array.dtype.itemsize
        if any(s % itemsize for s in array.strides):
            raise ValueError("strides are not whole elements")
        return buffer, tuple(s // itemsize for s in array.strides)

    def array(self, spec: Spec, strides: Strides | None = None, lend: bool = False
              ) -> np.ndarray:
        """An ndarray of `spec` over this memory; it keeps the buffer alive.

        Waits for a program in the background first, which may be writing to it.  With `lend` the
        array is for a user: private memory is shared until it and all that was made of it are gone.
        """
        if flight.current is not None:
            flight.finish()
        return self._seen((_Lent if lend else _View)(self, spec, strides), spec)

    def new_array(self, spec: Spec) -> np.ndarray:
        """`array` of memory that has just been taken: no program knows of it, so that there is
        nothing to wait for."""
        return self._seen(_View(self, spec, None), spec)

    @staticmethod
    def _seen(view: _View, spec: Spec) -> np.ndarray:
        array = np.asarray(view)
        return array.view(spec.dtype.np) if spec.dtype.name in _FOREIGN else array

    def snapshot(self, spec: Spec, strides: Strides | None = None) -> Buffer:
        """A private row-major copy of the value as it is now."""
        out = empty(spec.numel * spec.dtype.itemsize)
        if out.nbytes:
            np.copyto(out.new_array(spec), self.array(spec, strides))
        return out

    def __del__(self, _pool: _Pool = _POOL) -> None:
        if self.stamp:
            changed(self)
        home = self._home
        if home is not None and _pool.held < CACHE_TOTAL_LIMIT:
            _pool.held += home.size
            home.append((self._owner, self.ptr))

    def __repr__(self) -> str:
        shared = ", shared" if self.shared else ""
        return f"Buffer(0x{self.ptr:x}, {self.nbytes} bytes{shared})"


# ---------------------------------------------------------------- what is kept of a content

_last_stamp = 0
_keepers: dict[int, weakref.WeakSet[Any]] = {}


def stamped(buffer: Buffer, keeper: Any) -> int:
    """The stamp of a buffer's content.  `keeper.drop()` is called when it is no longer so."""
    global _last_stamp
    if buffer.shared:           # it may change unseen, and so is never the same again
        _last_stamp += 1
        return -_last_stamp
    if not buffer.stamp:
        _last_stamp += 1
        buffer.stamp = _last_stamp
        _keepers[buffer.stamp] = weakref.WeakSet()
    _keepers[buffer.stamp].add(keeper)
    return buffer.stamp


def forget(stamp: int, keeper: Any) -> None:
    """`keeper` keeps nothing of the content with this stamp any more."""
    keepers = _keepers.get(stamp)
    if keepers is not None:
        keepers.discard(keeper)


def changed(buffer: Buffer) -> None:
    """The buffer is about to be written, shown or freed: nothing made of its content is kept."""
    stamp, buffer.stamp = buffer.stamp, 0
    for keeper in list(_keepers.pop(stamp, ())):
        keeper.drop()


_FOREIGN = frozenset(d.name for d in DTYPES.values() if d.name == "bfloat16" or d.is_compact)


class _View:
    """What NumPy takes as the base of an array over a buffer."""

    __slots__ = ("buffer", "__array_interface__")

    def __init__(self, buffer: Buffer, spec: Spec, strides: Strides | None):
        itemsize = spec.dtype.itemsize
        typestr = spec.dtype.np.str
        self.buffer = buffer
        self.__array_interface__ = {
            "version": 3, "shape": spec.shape, "data": (buffer.ptr, False),
            # dtypes that NumPy does not know travel as raw bytes and are viewed afterwards
            "typestr": f"|V{itemsize}" if spec.dtype.name in _FOREIGN else typestr,
            "strides": None if strides is None else tuple(s * itemsize for s in strides)}


class _Lent(_View):
    """The base of an array that a user has been given."""

    __slots__ = ()

    def __init__(self, buffer: Buffer, spec: Spec, strides: Strides | None):
        super().__init__(buffer, spec, strides)
        if buffer.lent or not buffer.shared:
            buffer.lent += 1
            buffer.shared = True
            if buffer.stamp:
                changed(buffer)

    def __del__(self) -> None:
        buffer = self.buffer
        if buffer.lent:
            buffer.lent -= 1
            if not buffer.lent:
                buffer.shared = False


def empty(nbytes: int, _lists: dict[int, _FreeList] = _POOL.by_nbytes) -> Buffer:
    """Private memory for `nbytes` bytes (0 is fine), 64-byte aligned, contents undefined."""
    home = _lists.get(nbytes)
    if home is None:
        if nbytes > CACHE_BLOCK_LIMIT:
            owner, ptr = _fresh(nbytes)
            return Buffer(ptr, nbytes, owner)
        home = _POOL.list_for(nbytes)
    try:
        owner, ptr = home.pop()
        _POOL.held -= home.size
    except IndexError:
        owner, ptr = _fresh(home.size)
    return Buffer(ptr, nbytes, owner, home)


def together(sizes: Sequence[int]) -> list[Buffer]:
    """Private memory for each of several values, in one piece: what is used together then lies on
    few, large pages.  All of it is freed when the last of them is."""
    starts, total = [], 0
    for size in sizes:
        starts.append(total)
        total += (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    block, address = _fresh(total)
    return [Buffer(address + start, size, block) for start, size in zip(starts, sizes, strict=True)]


def from_numpy_private(array: np.ndarray, fresh: bool = False) -> Buffer:
    """A private buffer with the row-major content of `array`.

    fresh=True promises that nobody else holds `array`: its memory is taken over where it can be.
    """
    if (fresh and array.flags.c_contiguous and array.flags.owndata and array.flags.aligned
            and array.dtype.isnative and array.nbytes > 4096):
        return Buffer(array.__array_interface__["data"][0], array.nbytes, array)
    from facula.dtype import from_numpy_dtype
    from facula.graph.spec import spec
    out = empty(array.nbytes)
    if array.nbytes:
        np.copyto(out.new_array(spec(array.shape, from_numpy_dtype(array.dtype))), array)
    return out


def cached_bytes() -> int:
    """How many free bytes are kept for later values."""
    return _POOL.held


def release_cached() -> None:
    """Give all free blocks back to the operating system."""
    for home in list(_POOL.by_class.values()):
        while home:
            home.pop()
            _POOL.held -= home.size
