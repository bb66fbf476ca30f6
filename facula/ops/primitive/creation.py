"""Where values come from: buffers, runtime scalars, constants and the random stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.dtype import int32, int64, uint32
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec
from facula.ops.primitive.batching import drawn
from facula.ops.primitive.record import Infer, Sample, register

__all__ = ["philox4x32"]


def _given(name: str) -> Infer:
    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        if given is None:
            raise ShapeError(f"{name}: the shape and dtype of the result have to be given")
        return given
    return infer


def _bound_outside(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    raise ValueError("a leaf or scalar has the value it is launched with; it computes nothing")


def _infer_scalar(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    if given is None or given.shape != ():
        raise ShapeError("scalar: a runtime scalar has no dimensions and a given dtype")
    return given


register("leaf", "leaf", _given("leaf"), _bound_outside)
register("scalar", "leaf", _infer_scalar, _bound_outside)


def _full(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    value = attrs[0]
    if out.dtype.kind in "ui" and isinstance(value, int):
        # Integers wrap to the width of the dtype instead of raising.
        bits = 8 * out.dtype.itemsize
        value &= (1 << bits) - 1
        if out.dtype.kind == "i" and value >> (bits - 1):
            value -= 1 << bits
    with np.errstate(all="ignore"):
        return np.full(out.shape, value, out.dtype.np)


register("full", "constant", _given("full"), _full,
         samples=lambda make: [])


def _infer_iota(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    if given is None or len(given.shape) != 1 or given.dtype not in (int32, int64):
        raise ShapeError("iota: the result is a one-dimensional int64 or int32 tensor, not "
                         f"{given}")
    return given


register("iota", "constant", _infer_iota,
         lambda arrays, attrs, out: np.arange(out.shape[0], dtype=out.dtype.np))


def philox4x32(counter: np.ndarray, key: int, rounds: int = 10) -> np.ndarray:
    """Philox4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

    counter: uint64 (n,), the low 64 of the 128 counter bits; key: 64 bits.  uint32 (n, 4).
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1 = counter & mask, counter >> half
    c2 = np.zeros_like(c0)
    c3 = np.zeros_like(c0)
    k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    for _ in range(rounds):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = ((p1 >> half) ^ c1 ^ np.uint64(k0), p1 & mask,
                          (p0 >> half) ^ c3 ^ np.uint64(k1), p0 & mask)
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def _infer_philox(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    if len(specs) != 2 or any(s.shape != () or s.dtype is not int64 for s in specs):
        raise DTypeError("philox: takes a key and an offset, both int64 scalars")
    if given is None or given.dtype is not uint32:
        raise DTypeError("philox: the result is uint32, of a given shape")
    return given


def _philox(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    key = int(arrays[0]) & 0xFFFFFFFFFFFFFFFF
    offset = int(arrays[1]) & 0xFFFFFFFFFFFFFFFF
    blocks = -(-out.numel // 4)
    with np.errstate(over="ignore"):
        counter = np.arange(blocks, dtype=np.uint64) + np.uint64(offset)
    return philox4x32(counter, key).reshape(-1)[:out.numel].reshape(out.shape)


def _philox_samples(make: Any) -> list[Sample]:
    def scalar(value: int) -> np.ndarray:
        return np.array(value, np.int64)
    return [Sample((scalar(key), scalar(offset)), shape=shape, dtype=uint32)
            for key, offset in ((0, 0), (-1, 5), (1 << 40, (1 << 33) - 1))
            for shape in ((), (0,), (7,), (3, 5))]


register("philox", "constant", _infer_philox, _philox, samples=_philox_samples, batch=drawn)
