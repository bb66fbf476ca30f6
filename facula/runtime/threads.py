"""The native thread pool: its size, its life, and the machine code that its threads run.

Workers are Python threads that enter generated code once, with the GIL released, and stay there
until the pool is closed.  The thread that launches a program works as well, and never waits for
a worker that has claimed nothing:

* All tiles of all launches are numbered in one sequence.  `limit` is the end of what may be
  claimed now, `next` the first tile nobody has claimed; a thread claims tile `next` by
  compare-and-swap as long as `next < limit`.  Because the numbers never repeat, a thread that
  was asleep for a whole launch cannot claim anything twice or too early.
* A phase is complete when `done == limit`.  The launching thread publishes a phase, claims tiles
  like everybody else, and then waits only for tiles that others are in the middle of: it spins
  for some microseconds and then sleeps on a futex, which leaves its core to a worker that the
  system has taken off another core.
* A worker without work spins as long, then sleeps on a futex until a phase is published.

Where there is no futex (systems other than Linux) programs run on the calling thread alone.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from facula import config
from facula.runtime.allocator import Buffer, empty

__all__ = ["SOLO_COST", "get_num_threads", "set_num_threads", "available_threads", "driver",
           "pool_pointer", "shutdown", "at_fork"]

SOLO_COST = 12_000.0
"""Programs of fewer estimated nanoseconds than this run on the calling thread: sharing them
would cost more than it saves."""

# Byte offsets in the control block; what different threads write is on different cache lines.
_NEXT, _LIMIT, _PHASE, _BASE, _ARGS, _DONE = 0, 64, 128, 136, 144, 192
_WAITING, _EPOCH, _SLEEPERS, _STOP, _OWNER, _SPINS = 256, 320, 324, 328, 384, 392
_BLOCK_BYTES = 448

_FUTEX = {"x86_64": 202, "AMD64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221}
_PAUSE = {"x86_64": "pause", "AMD64": "pause", "aarch64": "isb"}


def _quota() -> float | None:
    """CPUs that the control group of this process may use, None without a limit."""
    folders = ["/sys/fs/cgroup"]
    try:
        with open("/proc/self/cgroup") as file:
            for line in file:
                number, controllers, path = line.rstrip("\n").split(":", 2)
                if number == "0":
                    folders.append(f"/sys/fs/cgroup{path}")
                elif "cpu" in controllers.split(","):
                    folders += ["/sys/fs/cgroup/cpu", f"/sys/fs/cgroup/cpu{path}"]
    except (OSError, ValueError):
        pass
    best: float | None = None
    for folder in folders:
        try:
            with open(f"{folder}/cpu.max") as file:
                quota, period = file.read().split()
        except (OSError, ValueError):
            try:
                with open(f"{folder}/cpu.cfs_quota_us") as file:
                    quota = file.read().strip()
                with open(f"{folder}/cpu.cfs_period_us") as file:
                    period = file.read().strip()
            except OSError:
                continue
        if quota not in ("max", "-1") and float(period) > 0:
            cpus = float(quota) / float(period)
            best = cpus if best is None else min(best, cpus)
    return best


def available_threads() -> int:
    """Threads that this process can run at the same time: CPU affinity and cgroup quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _quota()
    if quota is not None:
        count = min(count, math.ceil(quota))
    return max(1, count)


def _futex_number() -> int | None:
    return _FUTEX.get(platform.machine()) if sys.platform.startswith("linux") else None


def driver_text(futex: int | None, pause: str | None) -> str:
    """The LLVM module of the driver; see the top of this file for the protocol.

    @facula_driver(ptr out) stores the addresses of
      i64 run(ptr pool, ptr program)   one launch; pool null: on this thread alone; the status
      void work(ptr pool)              a worker's life
      void spin(i64 n)                 n rounds of the waiting loop, to learn how long they take
      void close(ptr pool)             make the workers return

    A program descriptor is 8-byte words: args, number of phases, then for each phase the number
    of kernels, the number of tiles, and a pointer to (function, map, tiles) for each kernel.
    """
    relax = f'call void asm sideeffect "{pause}", ""()' if pause else ""
    if futex is None:
        wait = wake = ""
    else:
        # FUTEX_WAIT_PRIVATE is 128, FUTEX_WAKE_PRIVATE 129
        wait = (f"call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 128, i32 %value, "
                "ptr null, ptr null, i32 0)")
        wake = (f"call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 129, i32 %count, "
                "ptr null, ptr null, i32 0)")
    syscall = "declare i64 @syscall(i64, ...)" if futex is not None else ""

    def at(offset: int, name: str) -> str:
        return f"%{name} = getelementptr i8, ptr %pool, i64 {offset}"

    claim_addresses = "\n  ".join([at(_NEXT, "next"), at(_LIMIT, "limit"), at(_PHASE, "phase.at"),
                                   at(_BASE, "base.at"), at(_ARGS, "args.at"), at(_DONE, "done"),
                                   at(_WAITING, "waiting")])
    return f"""
{syscall}

define internal void @futex_wait(ptr %word, i32 %value) noinline {{
  {wait}
  ret void
}}

define internal void @futex_wake(ptr %word, i32 %count) noinline {{
  {wake}
  ret void
}}

; Run tile %n of a phase: find the kernel it belongs to.
define internal void @tile(ptr %args, ptr %phase, i64 %n) {{
entry:
  %first.at = getelementptr i64, ptr %phase, i64 2
  %first = load ptr, ptr %first.at
  br label %look
look:
  %kernel = phi ptr [ %first, %entry ], [ %following, %skip ]
  %left = phi i64 [ %n, %entry ], [ %rest, %skip ]
  %count.at = getelementptr i64, ptr %kernel, i64 2
  %count = load i64, ptr %count.at
  %here = icmp slt i64 %left, %count
  br i1 %here, label %found, label %skip
skip:
  %rest = sub i64 %left, %count
  %following = getelementptr i64, ptr %kernel, i64 3
  br label %look
found:
  %fn = load ptr, ptr %kernel
  %map.at = getelementptr i64, ptr %kernel, i64 1
  %map = load ptr, ptr %map.at
  call void %fn(ptr %args, ptr %map, i64 %left)
  ret void
}}

; Claim and run tiles until there is nothing to claim.
define internal void @claim(ptr %pool) {{
entry:
  {claim_addresses}
  br label %again
again:
  %l = load atomic i64, ptr %limit seq_cst, align 8
  %n = load atomic i64, ptr %next seq_cst, align 8
  %some = icmp slt i64 %n, %l
  br i1 %some, label %try, label %none
try:
  %n1 = add i64 %n, 1
  %swap = cmpxchg ptr %next, i64 %n, i64 %n1 seq_cst seq_cst, align 8
  %mine = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %mine, label %work, label %again
work:
  ; from here to the increment of done the phase cannot end, so these stay as they are
  %phase = load ptr, ptr %phase.at
  %base = load i64, ptr %base.at
  %args = load ptr, ptr %args.at
  %t = sub i64 %n, %base
  call void @tile(ptr %args, ptr %phase, i64 %t)
  %old = atomicrmw add ptr %done, i64 1 seq_cst, align 8
  %w = load atomic i32, ptr %waiting seq_cst, align 4
  %watched = icmp ne i32 %w, 0
  br i1 %watched, label %last, label %again
last:
  %d = add i64 %old, 1
  %l2 = load atomic i64, ptr %limit seq_cst, align 8
  %complete = icmp eq i64 %d, %l2
  br i1 %complete, label %tell, label %again
tell:
  call void @futex_wake(ptr %done, i32 1)
  br label %again
none:
  ret void
}}

define internal void @spin(i64 %n) noinline {{
entry:
  br label %round
round:
  %i = phi i64 [ 0, %entry ], [ %j, %round ]
  {relax}
  call void asm sideeffect "", ""()
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %round, label %out
out:
  ret void
}}

define internal void @work(ptr %pool) {{
entry:
  {at(_NEXT, "next")}
  {at(_LIMIT, "limit")}
  {at(_EPOCH, "epoch")}
  {at(_SLEEPERS, "sleepers")}
  {at(_STOP, "stop")}
  {at(_SPINS, "spins.at")}
  br label %busy
busy:
  call void @claim(ptr %pool)
  %spins = load i64, ptr %spins.at
  br label %watch
watch:
  %i = phi i64 [ 0, %busy ], [ %j, %idle ]
  %l = load atomic i64, ptr %limit seq_cst, align 8
  %n = load atomic i64, ptr %next seq_cst, align 8
  %some = icmp slt i64 %n, %l
  br i1 %some, label %busy, label %idle
idle:
  {relax}
  %j = add i64 %i, 1
  %patient = icmp slt i64 %j, %spins
  br i1 %patient, label %watch, label %drowsy
drowsy:
  %e = load atomic i32, ptr %epoch seq_cst, align 4
  %quit = load atomic i32, ptr %stop seq_cst, align 4
  %end = icmp ne i32 %quit, 0
  br i1 %end, label %out, label %announce
announce:
  %s0 = atomicrmw add ptr %sleepers, i32 1 seq_cst, align 4
  %l2 = load atomic i64, ptr %limit seq_cst, align 8
  %n2 = load atomic i64, ptr %next seq_cst, align 8
  %late = icmp slt i64 %n2, %l2
  br i1 %late, label %up, label %sleep
sleep:
  call void @futex_wait(ptr %epoch, i32 %e)
  br label %up
up:
  %s1 = atomicrmw sub ptr %sleepers, i32 1 seq_cst, align 4
  br label %busy
out:
  ret void
}}

define internal void @close(ptr %pool) {{
  {at(_EPOCH, "epoch")}
  {at(_STOP, "stop")}
  store atomic i32 1, ptr %stop seq_cst, align 4
  %e = atomicrmw add ptr %epoch, i32 1 seq_cst, align 4
  call void @futex_wake(ptr %epoch, i32 2147483647)
  ret void
}}

; A phase shared with the workers.
define internal void @share(ptr %pool, ptr %args, ptr %phase, i64 %tiles) noinline {{
entry:
  {claim_addresses}
  {at(_EPOCH, "epoch")}
  {at(_SLEEPERS, "sleepers")}
  {at(_SPINS, "spins.at")}
  %base = load atomic i64, ptr %limit seq_cst, align 8
  store ptr %phase, ptr %phase.at
  store i64 %base, ptr %base.at
  store ptr %args, ptr %args.at
  %l = add i64 %base, %tiles
  store atomic i64 %l, ptr %limit seq_cst, align 8
  %s = load atomic i32, ptr %sleepers seq_cst, align 4
  %asleep = icmp ne i32 %s, 0
  br i1 %asleep, label %ring, label %help
ring:
  %e = atomicrmw add ptr %epoch, i32 1 seq_cst, align 4
  %others = sub i64 %tiles, 1
  %few = call i64 @llvm.smin.i64(i64 %others, i64 1024)
  %count = trunc i64 %few to i32
  call void @futex_wake(ptr %epoch, i32 %count)
  br label %help
help:
  call void @claim(ptr %pool)
  %spins = load i64, ptr %spins.at
  br label %watch
watch:
  %i = phi i64 [ 0, %help ], [ %j, %pausing ]
  %d = load atomic i64, ptr %done seq_cst, align 8
  %complete = icmp eq i64 %d, %l
  br i1 %complete, label %out, label %pausing
pausing:
  {relax}
  %j = add i64 %i, 1
  %patient = icmp slt i64 %j, %spins
  br i1 %patient, label %watch, label %drowsy
drowsy:
  store atomic i32 1, ptr %waiting seq_cst, align 4
  br label %look
look:
  %d2 = load atomic i64, ptr %done seq_cst, align 8
  %over = icmp eq i64 %d2, %l
  br i1 %over, label %awake, label %sleep
sleep:
  %low = trunc i64 %d2 to i32
  call void @futex_wait(ptr %done, i32 %low)
  br label %look
awake:
  store atomic i32 0, ptr %waiting seq_cst, align 4
  br label %out
out:
  ret void
}}
declare i64 @llvm.smin.i64(i64, i64)

; A phase on this thread alone.
define internal void @alone(ptr %args, ptr %phase) {{
entry:
  %kernels = load i64, ptr %phase
  %first.at = getelementptr i64, ptr %phase, i64 2
  %first = load ptr, ptr %first.at
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %k1, %after ]
  %kernel = phi ptr [ %first, %entry ], [ %following, %after ]
  %more = icmp slt i64 %k, %kernels
  br i1 %more, label %begin, label %out
begin:
  %fn = load ptr, ptr %kernel
  %map.at = getelementptr i64, ptr %kernel, i64 1
  %map = load ptr, ptr %map.at
  %count.at = getelementptr i64, ptr %kernel, i64 2
  %count = load i64, ptr %count.at
  br label %tiles
tiles:
  %t = phi i64 [ 0, %begin ], [ %t1, %one ]
  %left = icmp slt i64 %t, %count
  br i1 %left, label %one, label %after
one:
  call void %fn(ptr %args, ptr %map, i64 %t)
  %t1 = add i64 %t, 1
  br label %tiles
after:
  %k1 = add i64 %k, 1
  %following = getelementptr i64, ptr %kernel, i64 3
  br label %head
out:
  ret void
}}

define internal i64 @run(ptr %pool0, ptr %program) {{
entry:
  %args = load ptr, ptr %program
  %status = load ptr, ptr %args
  store i64 0, ptr %status
  %phases.at = getelementptr i64, ptr %program, i64 1
  %phases = load i64, ptr %phases.at
  %first = getelementptr i64, ptr %program, i64 2
  %solo = icmp eq ptr %pool0, null
  br i1 %solo, label %start, label %take
take:
  ; a pool that another thread is launching on is not waited for
  %owner0 = getelementptr i8, ptr %pool0, i64 {_OWNER}
  %swap = cmpxchg ptr %owner0, i64 0, i64 1 seq_cst seq_cst, align 8
  %taken = extractvalue {{ i64, i1 }} %swap, 1
  %kept = select i1 %taken, ptr %pool0, ptr null
  br label %start
start:
  %pool = phi ptr [ null, %entry ], [ %kept, %take ]
  %single = icmp eq ptr %pool, null
  br label %head
head:
  %p = phi i64 [ 0, %start ], [ %p1, %after ]
  %phase = phi ptr [ %first, %start ], [ %following, %after ]
  %more = icmp slt i64 %p, %phases
  br i1 %more, label %begin, label %finish
begin:
  %tiles.at = getelementptr i64, ptr %phase, i64 1
  %tiles = load i64, ptr %tiles.at
  %one = icmp slt i64 %tiles, 2
  %here = or i1 %one, %single
  br i1 %here, label %solo.phase, label %shared.phase
solo.phase:
  call void @alone(ptr %args, ptr %phase)
  br label %after
shared.phase:
  call void @share(ptr %pool, ptr %args, ptr %phase, i64 %tiles)
  br label %after
after:
  %p1 = add i64 %p, 1
  %following = getelementptr i64, ptr %phase, i64 3
  br label %head
finish:
  br i1 %single, label %out, label %release
release:
  %owner = getelementptr i8, ptr %pool, i64 {_OWNER}
  store atomic i64 0, ptr %owner seq_cst, align 8
  br label %out
out:
  %result = load i64, ptr %status
  ret i64 %result
}}

define void @facula_driver(ptr %out) {{
  store ptr @run, ptr %out
  %a = getelementptr ptr, ptr %out, i64 1
  store ptr @work, ptr %a
  %b = getelementptr ptr, ptr %out, i64 2
  store ptr @spin, ptr %b
  %c = getelementptr ptr, ptr %out, i64 3
  store ptr @close, ptr %c
  ret void
}}
"""


class Driver:
    """The driver's entry points as Python callables.

    run    a launch with the GIL released        run_held   the same, the GIL kept: for programs
    of a few microseconds, where giving the GIL away could cost a whole switch interval.
    """

    def __init__(self) -> None:
        from facula.runtime.jit import compile_kernels
        pause = _PAUSE.get(platform.machine())
        self.futex = _futex_number()
        text = driver_text(self.futex, pause)
        self._kernel = compile_kernels([("facula_driver", text)], threads=1)[0]
        out: Any = (ctypes.c_void_p * 4)()
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._kernel.address)(ctypes.addressof(out))
        address, two = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p)
        self.run: Callable[[int, int], int] = ctypes.CFUNCTYPE(ctypes.c_int64, *two)(out[0])
        self.run_held: Callable[[int, int], int] = ctypes.PYFUNCTYPE(ctypes.c_int64, *two)(out[0])
        self.work: Callable[[int], None] = ctypes.CFUNCTYPE(None, address)(out[1])
        self.spin: Callable[[int], None] = ctypes.CFUNCTYPE(None, ctypes.c_int64)(out[2])
        self.close: Callable[[int], None] = ctypes.CFUNCTYPE(None, address)(out[3])
        self.rounds_per_us = self._rounds_per_us()

    def _rounds_per_us(self) -> float:
        """How many rounds of the waiting loop take a microsecond (the best of a few tries)."""
        best = math.inf
        for _ in range(5):
            started = time.perf_counter()
            self.spin(400)
            best = min(best, time.perf_counter() - started)
        return 400 / max(best * 1e6, 0.1)


class _Pool:
    """Workers and the control block they share with the launching thread."""

    def __init__(self, threads: int):
        native = driver()
        self.threads = threads
        self.block: Buffer = empty(_BLOCK_BYTES)
        ctypes.memset(self.block.ptr, 0, _BLOCK_BYTES)
        spins = max(1, int(config.flag.SPIN_US * native.rounds_per_us))
        ctypes.c_int64.from_address(self.block.ptr + _SPINS).value = spins
        self.workers = []
        for i in range(threads - 1):
            # the arguments are bound, so that the worker touches no Python name after a fork
            worker = threading.Thread(target=native.work, args=(self.block.ptr,), daemon=True,
                                      name=f"facula-{i + 1}")
            worker.start()
            self.workers.append(worker)

    def close(self) -> None:
        """Wake the workers and wait until they have left native code."""
        driver().close(self.block.ptr)
        for worker in self.workers:
            worker.join()


_lock = threading.RLock()
_driver: Driver | None = None
_threads: int | None = None
_pool: _Pool | None = None
_closed = False


def driver() -> Driver:
    """The driver, compiled or loaded the first time."""
    global _driver
    if _driver is None:
        with _lock:
            if _driver is None:
                _driver = Driver()
    return _driver


def get_num_threads() -> int:
    """Threads that run a program, the launching one included."""
    global _threads
    if _threads is None:
        if _futex_number() is None:
            _threads = 1
        else:
            _threads = config.flag.NUM_THREADS if config.flag.NUM_THREADS > 0 \
                else available_threads()
    return _threads


def set_num_threads(n: int) -> None:
    """Use `n` threads, the launching one included; results do not depend on it."""
    global _threads, _pool
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise RuntimeError(f"set_num_threads expects a positive integer, got {n!r}")
    with _lock:
        _threads = n if _futex_number() is not None else 1
        old, _pool = _pool, None
        if old is not None:
            _drain(old)


def _drain(pool: _Pool) -> None:
    """Close a pool once no launch uses it."""
    owner = ctypes.c_int64.from_address(pool.block.ptr + _OWNER)
    while owner.value:
        time.sleep(0.0001)
    pool.close()


def pool_pointer() -> int:
    """Address of the control block to launch with; 0 when there is one thread only."""
    pool = _pool
    return pool.block.ptr if pool is not None else _make_pool()


def _make_pool() -> int:
    global _pool
    with _lock:
        if _pool is None:
            if _closed or get_num_threads() < 2:
                return 0
            _pool = _Pool(get_num_threads())
        return _pool.block.ptr


def shutdown() -> None:
    """End the workers; programs run on the calling thread alone after that."""
    global _pool, _closed
    with _lock:
        _closed = True
        old, _pool = _pool, None
        if old is not None:
            _drain(old)


at_fork: list[Callable[[], Any]] = []
"""What else must be renewed in a child process."""


def _in_child() -> None:
    """A forked child has none of the threads: it makes its own pool when it needs one."""
    global _lock, _pool, _abandoned
    _lock = threading.RLock()
    _abandoned = _pool
    _pool = None
    for renew in at_fork:
        renew()


_abandoned: _Pool | None = None

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
atexit.register(shutdown)
