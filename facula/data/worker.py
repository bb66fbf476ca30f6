"""The worker processes of a loader, and what travels between them and it.

Each worker has two pipes of its own: tasks in, results out.  Nothing is shared between workers,
so that one that is killed cannot leave a lock locked for the others.
"""

from __future__ import annotations

import pickle
import queue
import random
import signal
import sys
import threading
import traceback
from multiprocessing import connection, parent_process
from typing import Any

import numpy as np

from facula.data.fetch import make_fetcher

__all__ = ["WorkerInfo", "get_worker_info", "ExceptionWrapper", "pack", "unpack", "work",
           "describe_exit"]


class WorkerInfo:
    """What a worker knows of itself: `id`, `num_workers`, `seed`, `dataset` (its copy)."""

    id: int
    num_workers: int
    seed: int
    dataset: Any

    def __init__(self, **values: Any):
        self.__dict__.update(values)
        self.__dict__["_names"] = tuple(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuntimeError("Cannot assign attributes to WorkerInfo objects")

    def __repr__(self) -> str:
        names: tuple[str, ...] = self.__dict__["_names"]
        return f"WorkerInfo({', '.join(f'{n}={getattr(self, n)}' for n in names)})"


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker of a loader, what it is; None in the main process."""
    return _info


class _KeyMessage(str):
    """A message that KeyError shows as it is, newlines and all."""

    def __repr__(self) -> str:
        return str(self)


class ExceptionWrapper:
    """An exception with its traceback as text, to be raised again in another process."""

    def __init__(self, error: BaseException, where: str):
        self.exc_type: type[BaseException] = type(error)
        self.type_name = type(error).__name__
        self.exc_msg = "".join(traceback.format_exception(error))
        self.where = where
        try:
            pickle.dumps(self.exc_type)
        except Exception:               # a class made inside a function cannot travel
            self.exc_type = RuntimeError

    def reraise(self) -> None:
        """Raise the exception's type with the whole traceback of where it came from.

        `RuntimeError` stands in for types that cannot be made from a message.
        """
        message = f"Caught {self.type_name} {self.where}.\nOriginal {self.exc_msg}"
        error: BaseException
        if self.exc_type is KeyError:
            raise KeyError(_KeyMessage(message))
        try:
            if getattr(self.exc_type, "message", None):
                error = self.exc_type(message=message)         # type: ignore[call-arg]
            else:
                error = self.exc_type(message)
        except Exception:
            raise RuntimeError(message) from None
        raise error


def pack(value: Any) -> bytes:
    """`value` as bytes, with the tensors in it."""
    return pickle.dumps(value, protocol=5)


def unpack(data: bytes) -> Any:
    """What was packed; only ever used on bytes from a worker of this very process."""
    return pickle.loads(data)


def describe_exit(process: Any) -> str:
    """How a worker ended, for the message of the error."""
    code = process.exitcode
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
            words = signal.strsignal(-code)
        except ValueError:
            name, words = f"number {-code}", None
        hint = ""
        if name == "SIGKILL":
            hint = (" The system may have been out of memory: fewer workers, smaller batches or "
                    "a smaller prefetch_factor need less.")
        elif name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"):
            hint = " Try num_workers=0 to see where it fails."
        return (f"DataLoader worker (pid {process.pid}) is killed by signal: {name}"
                f"{f' ({words})' if words else ''}.{hint}")
    return (f"DataLoader worker (pid {process.pid}) exited unexpectedly with exit code {code}. "
            "Try num_workers=0 to see where it fails.")


class _Sender:
    """Sends results from a thread of its own, so that the worker goes on with the next task."""

    def __init__(self, results: Any):
        self.results = results
        self.waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (data := self.waiting.get()) is not None:
            try:
                self.results.send_bytes(data)
            except OSError:                                    # the loader is gone
                return

    def put(self, epoch: int, number: int, kind: str, value: Any, where: str) -> None:
        try:
            data = pack((epoch, number, kind, value))
        except Exception as error:
            data = pack((epoch, number, "error", ExceptionWrapper(error, where)))
        self.waiting.put(data)

    def close(self) -> None:
        self.waiting.put(None)
        self.thread.join()


def _seed_everything(seed: int) -> None:
    import facula
    facula.manual_seed(seed)
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])


def work(tasks: Any, results: Any, unwanted: tuple[Any, ...], job: Any, worker_id: int,
         num_workers: int) -> None:
    """The life of a worker process.

    `job` is (dataset, iterable, auto_collation, collate_fn, drop_last, init_fn), or packed bytes
    of it where the process does not share its parent's memory.
    Tasks are ("epoch", number, seed), ("batch", number, indices, position) and None, the end.
    Results are (epoch, number, kind, value), with kind "batch", "error" or "end" (of the data).
    """
    global _info
    where = f"in DataLoader worker process {worker_id}"
    for other in unwanted:               # the loader's ends, which a fork has copied
        other.close()
    sender = _Sender(results)
    parent = parent_process()
    sources = [tasks] if parent is None else [tasks, parent.sentinel]
    epoch, fetcher, trouble = 0, None, None
    try:
        if isinstance(job, bytes):
            job = unpack(job)
        dataset, iterable, auto_collation, collate_fn, drop_last, init_fn = job
        import facula
        set_threads = getattr(facula, "set_num_threads", None)
        if set_threads is not None:
            set_threads(1)
        while True:
            if tasks not in connection.wait(sources):
                break                                          # the loader's process has ended
            task = unpack(tasks.recv_bytes())
            if task is None:
                break
            try:
                if task[0] == "epoch":
                    epoch, seed, trouble = task[1], task[2] + worker_id, None
                    if _info is None:
                        _seed_everything(seed)
                        _info = WorkerInfo(id=worker_id, num_workers=num_workers, seed=seed,
                                           dataset=dataset)
                        if init_fn is not None:
                            init_fn(worker_id)
                    fetcher = make_fetcher(dataset, iterable, auto_collation, collate_fn,
                                           seed if iterable else task[2], drop_last)
                    continue
                number = task[1]
                if trouble is not None:                        # said once, at the first batch
                    sender.put(epoch, number, "error", trouble, where)
                    continue
                assert fetcher is not None
                try:
                    value = fetcher.fetch(task[2], task[3])
                except StopIteration:
                    if not iterable:
                        raise
                    sender.put(epoch, number, "end", None, where)
                    continue
                sender.put(epoch, number, "batch", value, where)
            except Exception as error:
                if task[0] == "epoch":
                    trouble = ExceptionWrapper(error, where)
                else:
                    sender.put(epoch, task[1], "error", ExceptionWrapper(error, where), where)
    except KeyboardInterrupt:
        pass                                                   # the main process will say so
    except (EOFError, OSError):
        pass                                                   # the loader is gone
    finally:
        sender.close()
        results.close()
        sys.stdout.flush()
