"""Data sets for the tests of loading; a module, so that spawned workers find them."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

import facula
from facula.data import Dataset, IterableDataset, get_worker_info
from facula.data.rng import stream


class Numbers(Dataset):
    def __init__(self, n: int = 10):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int):
        return i, np.full(3, i, np.float32), facula.tensor([float(i)])


class Noise(Numbers):
    def __getitem__(self, i: int):
        return i, stream().uniform(), stream().uniform()


class Slow(Numbers):
    def __getitem__(self, i: int):
        time.sleep(0.05 if i % 4 == 0 else 0.0)
        return i


class Broken(Numbers):
    def __init__(self, error: type[BaseException], at: int = 3, n: int = 10):
        super().__init__(n)
        self.error, self.at = error, at

    def __getitem__(self, i: int):
        if i == self.at:
            raise self.error("a bad sample")
        return i


class TwoArguments(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


class Deadly(Numbers):
    def __getitem__(self, i: int):
        if i == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return i


class Leaving(Numbers):
    def __getitem__(self, i: int):
        if i == 4:
            os._exit(3)
        return i


class Sleepy(Numbers):
    def __getitem__(self, i: int):
        time.sleep(30)


class Where(Numbers):
    def __getitem__(self, i: int):
        info = get_worker_info()
        return (i, -1 if info is None else info.id, os.getpid(),
                0 if info is None else info.num_workers, np.random.randint(1 << 30))


class Count(IterableDataset):
    def __init__(self, n: int, told: int | None = None):
        self.n, self.told = n, told

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.n, step))


class Told(Count):
    def __len__(self) -> int:
        return self.told


def fail_to_start(worker_id: int) -> None:
    raise ValueError(f"no start for {worker_id}")


def note(worker_id: int) -> None:
    get_worker_info().dataset.n_noted = worker_id


def to_list(batch):
    return list(batch)
