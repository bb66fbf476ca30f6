"""Generators: a key and a position in the stream of random numbers that the key stands for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from facula.device import CPU, check_device
from facula.device import device as Device
from facula.dtype import uint8
from facula.graph.record import _local
from facula.tensor import Tensor, from_array

__all__ = ["Generator", "default_generator", "manual_seed", "seed", "initial_seed",
           "get_rng_state", "set_rng_state", "fork_rng"]

_MASK = (1 << 64) - 1
_DEFAULT_SEED = 67280421310721


def _mind(what: str) -> None:
    """Say to a capture that it cannot repeat what is happening."""
    tape = _local.rec.tape
    if tape is not None:
        tape.refuse(what)


class Generator:
    """A stream of random numbers: `manual_seed` chooses it, every draw moves along it."""

    def __init__(self, device: Any = "cpu"):
        check_device(device)
        self._seed = _DEFAULT_SEED
        self._position = 0
        self._lock = threading.Lock()

    @property
    def device(self) -> Device:
        return CPU

    def manual_seed(self, seed: int) -> Generator:
        """Begin the stream of `seed`, any integer of 64 bits."""
        if isinstance(seed, Tensor):
            seed = seed.item()                               # type: ignore[attr-defined]
        if not hasattr(seed, "__index__"):
            if not isinstance(seed, float):
                raise TypeError(f"manual_seed expected a long, but got {type(seed).__name__}")
            seed = int(seed)
        seed = int(seed)
        if not -(1 << 63) <= seed < 1 << 64:
            raise RuntimeError(f"Overflow when unpacking long: the seed {seed} has more than 64 "
                               "bits")
        _mind("a generator was seeded")
        with self._lock:
            self._seed = seed & _MASK
            self._position = 0
        return self

    def seed(self) -> int:
        """Begin a stream that cannot be foreseen; returns its seed."""
        fresh = int.from_bytes(os.urandom(8), "little") >> 1
        self.manual_seed(fresh)
        return fresh

    def initial_seed(self) -> int:
        """The seed of the present stream."""
        return self._seed

    def get_state(self) -> Tensor:
        """Seed and position as a uint8 tensor, for `set_state`."""
        _mind("a generator's state was read")
        with self._lock:
            words = np.array([self._seed, self._position], np.uint64)
        return from_array(words.view(np.uint8))

    def set_state(self, new_state: Tensor) -> Generator:
        """Go back to where `get_state` was called."""
        if not isinstance(new_state, Tensor):
            raise TypeError(f"expected a Tensor, but got {type(new_state).__name__}")
        if new_state.dtype is not uint8:
            raise TypeError(f"RNG state must be a uint8 tensor, and this one is "
                            f"{new_state.dtype.name}")
        if new_state.shape != (16,):
            raise RuntimeError(f"RNG state is wrong size: 16 bytes, and this one has "
                               f"{new_state.numel()}")
        seed, position = np.array(new_state._peek()).view(np.uint64).tolist()
        _mind("a generator's state was set")
        with self._lock:
            self._seed, self._position = seed, position
        return self

    def clone_state(self) -> Generator:
        """Another generator at the same place."""
        return Generator().set_state(self.get_state())

    def _advance(self, words: int) -> tuple[int, int]:
        """Take `words` numbers of 32 bits: the key, and the block they begin at."""
        _mind("random numbers were drawn outside of the graph")
        with self._lock:
            position = self._position
            self._position = (position + -(-words // 4)) & _MASK
            return self._seed, position

    def __reduce__(self) -> Any:
        return _restore, (self._seed, self._position)

    def __repr__(self) -> str:
        return f"<facula.Generator seed={self._seed} position={self._position}>"


def _restore(seed: int, position: int) -> Generator:
    out = Generator()
    out._seed, out._position = seed, position
    return out


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Begin the stream of `seed` in the default generator; returns it."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Begin a stream that cannot be foreseen; returns its seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the default generator began with."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Put the default generator back to a state."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **_: Any) -> Iterator[None]:
    """Leave the default generator after the block as it was before it."""
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)
