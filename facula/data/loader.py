"""DataLoader: batches of a dataset, made in this process or by workers, in order."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from facula.data import rng
from facula.data.collate import default_collate, default_convert
from facula.data.dataset import IterableDataset
from facula.data.fetch import batches_at_once, make_fetcher
from facula.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from facula.data.worker import describe_exit, pack, unpack, work

__all__ = ["DataLoader"]

T_co = TypeVar("T_co", covariant=True)

_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")


class _Endless(Sampler[None]):
    """What an iterable dataset is asked with: only its own end ends the epoch."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(Generic[T_co]):
    """Iterates over a dataset in batches.

    dataset          map-style (`__getitem__`, `__len__`) or an `IterableDataset`
    batch_size       samples a batch; None yields single samples, converted and not collated
    shuffle          a new random order each epoch
    sampler          yields indices in the order wanted, in place of `shuffle`
    batch_sampler    yields lists of indices, in place of batch_size, shuffle, sampler, drop_last
    num_workers      processes that make batches; 0 makes them in this one
    collate_fn       makes a batch of a list of samples (`default_collate`)
    pin_memory       accepted and without effect: there is no memory to pin for
    drop_last        leave out a last batch that is smaller
    timeout          seconds to wait for a batch from a worker; 0 waits for ever
    worker_init_fn   called with the worker's number in each worker
    multiprocessing_context  how workers are started: "fork", "spawn", "forkserver" or a context
    generator        where shuffling and the workers' seeds come from
    prefetch_factor  batches that are asked of each worker in advance (2)
    persistent_workers  keep the workers from epoch to epoch
    in_order         False yields batches as workers finish them

    In this process, a batch of one of the library's own datasets with its own transforms is made
    with a few array operations for all samples, which gives the same bits as making them singly.
    """

    dataset: Any
    batch_size: int | None
    num_workers: int
    drop_last: bool
    timeout: float
    sampler: Any
    batch_sampler: Any
    _ready = False
    _iterator: Any = None

    def __init__(self, dataset: Any, batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Any = None, batch_sampler: Any = None, num_workers: int = 0,
                 collate_fn: Callable[[list[Any]], Any] | None = None, pin_memory: bool = False,
                 drop_last: bool = False, timeout: float = 0,
                 worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None, generator: Any = None, *,
                 prefetch_factor: int | None = None, persistent_workers: bool = False,
                 pin_memory_device: str = "", in_order: bool = True):
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative; use num_workers=0 to "
                             "disable multiprocessing.")
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError("prefetch_factor option could only be specified in multiprocessing."
                             "let num_workers > 0 to enable multiprocessing, otherwise set "
                             "prefetch_factor to None.")
        if num_workers > 0 and prefetch_factor is None:
            prefetch_factor = 2
        elif prefetch_factor is not None and prefetch_factor < 0:
            raise ValueError("prefetch_factor option should be non-negative")
        if persistent_workers and num_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            for name, value in (("shuffle", shuffle or None), ("sampler", sampler),
                                ("batch_sampler", batch_sampler)):
                if value is not None:
                    raise ValueError("DataLoader with IterableDataset: expected unspecified "
                                     f"{name} option, but got {name}={value}")
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError("batch_sampler option is mutually exclusive with batch_size, "
                                 "shuffle, sampler, and drop_last")
            batch_size, drop_last = None, False
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually "
                             "exclusive with drop_last")
        if sampler is None:
            if self._iterable:
                sampler = _Endless()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.generator = generator
        if collate_fn is None:
            collate_fn = default_collate if self._auto_collation else default_convert
        self.collate_fn = collate_fn
        self.persistent_workers = persistent_workers
        self._ready = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self._ready and name in _FIXED:
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is "
                             "initialized")
        super().__setattr__(name, value)

    @property
    def multiprocessing_context(self) -> Any:
        """The context that starts the workers, None for the system's usual one."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: Any) -> None:
        if context is not None:
            if self.num_workers == 0:
                raise ValueError("multiprocessing_context can only be used with multi-process "
                                 f"loading (num_workers > 0), but got num_workers="
                                 f"{self.num_workers}")
            if isinstance(context, str):
                known = multiprocessing.get_all_start_methods()
                if context not in known:
                    raise ValueError("multiprocessing_context option should specify a valid start "
                                     f"method in {known!r}, but got multiprocessing_context="
                                     f"{context!r}")
                context = multiprocessing.get_context(context)
            elif not isinstance(context, multiprocessing.context.BaseContext):
                raise TypeError("multiprocessing_context option should be a valid context object "
                                "or a string specifying the start method, but got "
                                f"multiprocessing_context={context}")
        self._context = context

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.batch_sampler if self._auto_collation else self.sampler

    def __iter__(self) -> Iterator[Any]:
        if self.num_workers == 0:
            return _OneProcess(self)
        if self.persistent_workers:
            if self._iterator is None or self._iterator.closed:
                self._iterator = _Workers(self)
            else:
                self._iterator.start_epoch()
            return self._iterator                             # type: ignore[no-any-return]
        return _Workers(self)

    def __len__(self) -> int:
        """Batches an epoch (samples, when not batching)."""
        if not self._iterable:
            return len(self._index_sampler)
        n = len(self.dataset)
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


class _Epoch:
    """What both ways of loading share: the seed, the length, a warning when it was wrong."""

    def __init__(self, loader: DataLoader[Any]):
        self.loader = loader
        self._given = 0
        self._expected: int | None = None
        if loader._iterable and hasattr(loader.dataset, "__len__"):
            try:
                self._expected = len(loader)
            except (TypeError, NotImplementedError):
                self._expected = None

    def __iter__(self) -> Any:
        return self

    def __len__(self) -> int:
        return len(self.loader)

    def _count(self) -> None:
        self._given += 1
        if self._expected is not None and self._given == self._expected + 1:
            warnings.warn(f"Length of IterableDataset {self.loader.dataset} was reported to be "
                          f"{self._expected} batches, but more samples have been fetched."
                          + (" With workers, each must yield a part of the data: see "
                             "get_worker_info()." if self.loader.num_workers else ""),
                          stacklevel=3)


class _OneProcess(_Epoch):
    """An epoch in this process."""

    def __init__(self, loader: DataLoader[Any]):
        super().__init__(loader)
        seed = rng.draw_seed(loader.generator)
        fetcher = make_fetcher(loader.dataset, loader._iterable, loader._auto_collation,
                               loader.collate_fn, seed, loader.drop_last)
        self._batches: Iterator[Any] | None = None
        if loader._auto_collation and not loader._iterable:
            self._batches = batches_at_once(loader.dataset, loader.batch_sampler,
                                            loader.collate_fn, seed, fetcher.fetch)
        self._fetch = fetcher.fetch
        if self._batches is None:
            self._indices = iter(loader._index_sampler)
        self._position = 0

    def __next__(self) -> Any:
        if self._batches is not None:
            return next(self._batches)
        indices = next(self._indices)
        batch = self._fetch(indices, self._position)
        self._position += _samples(indices, self.loader)
        if self._expected is not None:
            self._count()
        return batch


def _samples(indices: Any, loader: DataLoader[Any]) -> int:
    return len(indices) if loader._auto_collation and hasattr(indices, "__len__") else 1


_END = object()


class _Workers(_Epoch):
    """Epochs made by worker processes.

    Tasks are numbered, given to the workers in turn, and their results put back in order.  Every
    task is answered; answers carry the number of their epoch, so that those of an epoch that was
    left early are known and dropped.
    """

    def __init__(self, loader: DataLoader[Any]):
        super().__init__(loader)
        context: Any = loader.multiprocessing_context or multiprocessing.get_context()
        job: Any = (loader.dataset, loader._iterable, loader._auto_collation, loader.collate_fn,
                    loader.drop_last, loader.worker_init_fn)
        forks = context.get_start_method() == "fork"
        if not forks:
            job = pack(job)
        self._processes: list[Any] = []
        self._tasks: list[Any] = []
        self._results: list[Any] = []
        self._close = weakref.finalize(self, _shut_down, self._processes, self._tasks,
                                       self._results, os.getpid())
        self._epoch = 0
        try:
            for k in range(loader.num_workers):
                their_tasks, tasks = context.Pipe(duplex=False)
                results, their_results = context.Pipe(duplex=False)
                self._tasks.append(tasks)
                self._results.append(results)
                unwanted = (*self._tasks, *self._results) if forks else ()
                process = context.Process(
                    target=work, daemon=True, name=f"facula-data-worker-{k}",
                    args=(their_tasks, their_results, unwanted, job, k, loader.num_workers))
                process.start()
                self._processes.append(process)
                their_tasks.close()
                their_results.close()
            self.start_epoch()
        except BaseException:
            self._close()
            raise

    @property
    def closed(self) -> bool:
        """The workers have been shut down."""
        return not self._close.alive

    def start_epoch(self) -> None:
        """Begin anew; what is still under way of the epoch before is dropped."""
        loader = self.loader
        self._epoch += 1
        self._given = 0
        seed = rng.draw_seed(loader.generator)
        self._indices = iter(loader._index_sampler)
        self._sent = self._next = self._position = 0
        self._active = [True] * len(self._processes)
        self._turn = 0
        self._ready: dict[int, Any] = {}
        self._waiting: set[int] = set()
        for k in range(len(self._processes)):
            self._send(k, ("epoch", self._epoch, seed))
        for _ in range(max(1, loader.prefetch_factor or 0) * len(self._processes)):
            self._hand_out()

    def _send(self, worker: int, task: Any) -> None:
        data = pack(task)
        try:
            self._tasks[worker].send_bytes(data)
        except OSError:
            self._died(worker)

    def _hand_out(self) -> None:
        """Give the next task to the next worker that still has data."""
        n = len(self._processes)
        worker = next((k % n for k in range(self._turn, self._turn + n) if self._active[k % n]),
                      None)
        if worker is None:
            return
        try:
            indices = next(self._indices)
        except StopIteration:
            return
        self._turn = (worker + 1) % n
        self._waiting.add(self._sent)
        self._send(worker, ("batch", self._sent, indices, self._position))
        self._sent += 1
        self._position += _samples(indices, self.loader)

    def _died(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(5)
        message = describe_exit(process)
        self._close()
        raise RuntimeError(message)

    def _receive(self) -> None:
        """Wait for something to arrive, and put it where it belongs."""
        timeout = self.loader.timeout
        end = time.monotonic() + timeout if timeout else None
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            arrived = connection.wait(
                [*self._results, *(p.sentinel for p in self._processes)], left)
            if not arrived:
                raise RuntimeError(f"DataLoader timed out after {timeout} seconds")
            got = False
            for k, results in enumerate(self._results):
                if results not in arrived:
                    continue
                try:
                    data = results.recv_bytes()
                except (EOFError, OSError):
                    self._died(k)
                epoch, number, kind, value = unpack(data)
                if epoch != self._epoch:
                    continue
                got = True
                self._waiting.discard(number)
                if kind == "end":
                    self._active[k] = False
                    value = _END
                self._ready[number] = (kind, value)
            if got:
                return
            for k, process in enumerate(self._processes):
                if process.sentinel in arrived and self._results[k] not in arrived:
                    self._died(k)

    def __next__(self) -> Any:
        while True:
            if self.loader.in_order:
                number = self._next
                if number >= self._sent:
                    break
            else:
                if not self._ready and not self._waiting:
                    break
                number = next(iter(self._ready), -1)
            if number not in self._ready:
                if self.closed:
                    break
                self._receive()
                continue
            kind, value = self._ready.pop(number)
            self._next += 1
            if not self.closed:
                self._hand_out()
            if kind == "end":
                continue
            if kind == "error":
                value.reraise()
            if self._expected is not None:
                self._count()
            return value
        if not self.loader.persistent_workers:
            self._close()
        raise StopIteration


def _shut_down(processes: list[Any], tasks: list[Any], results: list[Any], owner: int) -> None:
    """End the workers; a forked child that inherits the loader leaves them alone."""
    if os.getpid() != owner:
        return
    for pipe in tasks:
        try:
            pipe.send_bytes(pack(None))
        except OSError:
            pass
    for pipe in (*results, *tasks):       # a worker in the middle of sending is released
        pipe.close()
    for process in processes:
        process.join(5)
        if process.is_alive():
            process.terminate()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


