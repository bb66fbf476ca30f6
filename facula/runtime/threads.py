"""The native thread pool: its size and its life.

Workers are Python threads that enter generated code once, with the GIL released, and stay there
until the pool is closed; `facula.runtime.driver` is that code.  The thread that launches a
program works as well, and never waits for a worker that has claimed nothing.

Where there is no futex (systems other than Linux) programs run on the calling thread alone.
"""

from __future__ import annotations

import atexit
import contextlib
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
from facula.runtime import flight
from facula.runtime.allocator import Buffer, empty
from facula.runtime.driver import BACK, BLOCK_BYTES, FRONT, OWNER, SPINS, driver_text

__all__ = ["SOLO_COST", "get_num_threads", "set_num_threads", "available_threads", "driver",
           "driver_ahead", "pool_pointer", "shutdown", "at_fork"]

SOLO_COST = 12_000.0
"""Programs of fewer estimated nanoseconds than this run on the calling thread: sharing them
would cost more than it saves."""

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


class Driver:
    """The driver's entry points as Python callables.

    run    a launch with the GIL released        run_held   the same, the GIL kept: for programs
    of a few microseconds, where giving the GIL away could cost a whole switch interval.
    begin, join    a launch in the background, and waiting for it with the GIL released
    """

    def __init__(self) -> None:
        from facula.runtime.jit import compile_kernels
        pause = _PAUSE.get(platform.machine())
        self.futex = _futex_number()
        text = driver_text(self.futex, pause)
        self._kernel = compile_kernels([("facula_driver", text)], threads=1)[0]
        out: Any = (ctypes.c_void_p * 6)()
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._kernel.address)(ctypes.addressof(out))
        address, two = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p)
        self.run: Callable[[int, int], int] = ctypes.CFUNCTYPE(ctypes.c_int64, *two)(out[0])
        self.run_held: Callable[[int, int], int] = ctypes.PYFUNCTYPE(ctypes.c_int64, *two)(out[0])
        self.work: Callable[[int, int], None] = ctypes.CFUNCTYPE(
            None, address, ctypes.c_int64)(out[1])
        self.spin: Callable[[int], None] = ctypes.CFUNCTYPE(None, ctypes.c_int64)(out[2])
        self.close: Callable[[int], None] = ctypes.CFUNCTYPE(None, address)(out[3])
        self.begin: Callable[[int, int], int] = ctypes.PYFUNCTYPE(ctypes.c_int64, *two)(out[4])
        self.join: Callable[[int], int] = ctypes.CFUNCTYPE(ctypes.c_int64, address)(out[5])
        self.rounds_per_us = self._rounds_per_us()

    def _rounds_per_us(self) -> float:
        """How many rounds of the waiting loop take a microsecond (the best of a few tries)."""
        best = math.inf
        for _ in range(5):
            started = time.perf_counter()
            self.spin(400)
            best = min(best, time.perf_counter() - started)
        return 400 / max(best * 1e6, 0.1)


STACK_BYTES = 8 << 20
"""Of a worker: tiles of convolutions keep up to a quarter of it, and not every system gives a
thread that much unasked."""


class _Pool:
    """Workers and the control block they share with the launching thread."""

    def __init__(self, threads: int):
        native = driver()
        self.threads = threads
        self.block: Buffer = empty(BLOCK_BYTES)
        ctypes.memset(self.block.ptr, 0, BLOCK_BYTES)
        spins = max(1, int(config.flag.SPIN_US * native.rounds_per_us))
        ctypes.c_int64.from_address(self.block.ptr + SPINS).value = spins
        self.workers = []
        before = threading.stack_size(STACK_BYTES)
        try:
            for i in range(threads - 1):
                # the arguments are bound, so that the worker touches no Python name after a fork
                # the launching thread claims from the front, so the first worker begins at the
                # back
                end = FRONT if i % 2 else BACK
                worker = threading.Thread(target=native.work, args=(self.block.ptr, end),
                                          daemon=True, name=f"facula-{i + 1}")
                worker.start()
                self.workers.append(worker)
        finally:
            threading.stack_size(before)

    def close(self) -> None:
        """Wake the workers and wait until they have left native code."""
        driver().close(self.block.ptr)
        for worker in self.workers:
            worker.join()


_lock = threading.RLock()
_driver: Driver | None = None
_ahead: threading.Thread | None = None
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


def driver_ahead() -> None:
    """Begin to make the driver, if there is none, beside what the calling thread does next: it
    takes as long as several kernels, and the first program waits for it at the end."""
    global _ahead
    if _driver is None and _ahead is None and get_num_threads() > 1:
        _ahead = threading.Thread(target=_try_driver, name="facula-driver")
        _ahead.start()


def _try_driver() -> None:
    with contextlib.suppress(Exception):        # whoever needs it will meet the error again
        driver()


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
    flight.finish()
    owner = ctypes.c_int64.from_address(pool.block.ptr + OWNER)
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
    flight.renew()
    _abandoned = _pool
    _pool = None
    for renew in at_fork:
        renew()


def _land() -> None:
    """Before a fork: what is in flight would never land in the child, and the locks of a thread
    that compiles would stay locked there."""
    if _ahead is not None:
        _ahead.join()
    try:
        flight.finish()
    except Exception as error:
        import warnings
        warnings.warn(f"a program that ran while the process forked has failed: {error}",
                      stacklevel=2)


_abandoned: _Pool | None = None

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_land, after_in_child=_in_child)
atexit.register(shutdown)
