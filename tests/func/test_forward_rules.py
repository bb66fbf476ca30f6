"""Forward derivatives of every public operation against the reverse ones: <u, J v> = <J' u, v>."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import facula
from facula.func import jvp, vjp
from facula.ops.define import OPS
from facula.tensor import Tensor, from_array

NAMES = sorted(n for n, r in OPS.items() if r.samples is not None and r.differentiable)


def maker(seed):
    rng = np.random.default_rng(seed)

    def make(*shape, dtype=facula.float32, low=-2, high=2, requires_grad=False, **_):
        if dtype.kind == "b":
            return from_array(np.asarray(rng.integers(0, 2, shape)).astype(bool))
        if dtype.kind in "ui":
            return from_array(np.asarray(rng.integers(int(low), int(high), shape)).astype(
                dtype.np))
        values = np.asarray(rng.uniform(low, high, shape))
        if dtype.kind == "c":
            return from_array(values + 1j * np.asarray(rng.uniform(low, high, shape)))
        return from_array(values)                           # float64, whatever was asked for
    return make


def tensors(value, found):
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (list, tuple)):
        for v in value:
            tensors(v, found)
    elif isinstance(value, dict):
        for v in value.values():
            tensors(v, found)
    return found


def replaced(value, new):
    if isinstance(value, Tensor):
        return next(new) if value.dtype.kind in "fc" else value
    if isinstance(value, (list, tuple)):
        parts = [replaced(v, new) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {k: replaced(v, new) for k, v in value.items()}
    return value


def direction(rng, t):
    values = rng.normal(size=t.shape)
    if t.dtype.kind == "c":
        values = values + 1j * rng.normal(size=t.shape)
    return from_array(np.asarray(values).astype(t.dtype.np))


def inner(a, b):
    return sum(float(np.sum(np.conj(x.detach().numpy()) * y.detach().numpy()).real)
               for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_forward_against_reverse(name):
    record = OPS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for args, kwargs in record.samples(maker(zlib.crc32(name.encode())))[:5]:
        inputs = [t.detach() for t in tensors([args, kwargs], []) if t.dtype.kind in "fc"]
        if not inputs:
            continue

        def call(*given, args=args, kwargs=kwargs):
            facula.manual_seed(0)
            a, k = replaced([list(args), kwargs], iter(given))
            out = [t for t in tensors(record.fn(*a, **k), []) if t.dtype.kind in "fc"]
            return tuple(out)

        if not call(*inputs):
            continue
        v = [direction(rng, t) for t in inputs]
        out, slopes = jvp(call, tuple(inputs), tuple(v))
        u = tuple([direction(rng, t) for t in out])
        back = vjp(call, *inputs)[1](u)
        left, right = inner(u, slopes), inner(back, v)
        if np.isnan(left) and np.isnan(right):
            continue
        assert abs(left - right) <= 1e-6 * (1 + abs(left) + abs(right)), (args, kwargs)
