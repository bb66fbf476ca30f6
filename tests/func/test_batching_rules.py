"""Every primitive's batching rule, and every public operation, against a loop over examples."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import facula
from facula.dtype import from_numpy_dtype
from facula.errors import VmapError
from facula.func import vmap
from facula.ops.define import OPS
from facula.ops.primitive.batching import Batch, one_by_one
from facula.ops.table import PRIMS
from facula.tensor import Tensor, from_array, prim

EXAMPLES = 3
WITH_SAMPLES = sorted(n for n, p in PRIMS.items() if p.kind not in ("leaf",) and n != "philox")


def maker(seed):
    rng = np.random.default_rng(seed)

    def make(*shape, dtype=facula.float32, low=-2, high=2, requires_grad=False):
        if dtype.kind == "b":
            return np.asarray(rng.integers(0, 2, shape)).astype(bool)
        if dtype.kind in "ui":
            return np.asarray(rng.integers(int(low), int(high), shape)).astype(dtype.np)
        values = rng.uniform(low, high, shape)
        if dtype.kind == "c":
            values = values + 1j * rng.uniform(low, high, shape)
        return np.asarray(values, np.complex128 if dtype.kind == "c" else np.float64).astype(
            dtype.np)
    return make


def variants(array):
    """Other values of the same kind: the elements in another order, so that indices stay valid."""
    flat = array.reshape(-1)
    return [np.roll(flat, k).reshape(array.shape) for k in range(EXAMPLES)]


def same(got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype, (got.shape, want.shape)
    if got.dtype.kind in "fcV":
        wide = np.complex128 if got.dtype.kind == "c" else np.float64
        tolerance = {1: 0, 2: 2e-2, 4: 2e-5, 8: 2e-5 if got.dtype.kind == "c" else 1e-10,
                     16: 1e-10}[got.dtype.itemsize]
        np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=tolerance,
                                   atol=tolerance)
    else:
        np.testing.assert_array_equal(got, want)


def choices(count):
    """Which operands are batched: each alone, and all of them."""
    return [(k,) for k in range(count)] + ([tuple(range(count))] if count > 1 else [])


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize("name", WITH_SAMPLES)
def test_rule_against_a_loop(name):
    record = PRIMS[name]
    samples = record.samples(maker(zlib.crc32(name.encode())))
    for sample in samples[::max(1, len(samples) // 12)]:
        stacks = [variants(a) for a in sample.arrays]

        def call(*operands, sample=sample):
            return prim(name, *operands, attrs=sample.attrs, shape=sample.shape,
                        dtype=sample.dtype)

        for chosen in choices(len(stacks)):
            dims = tuple([0 if k in chosen else None for k in range(len(stacks))])
            batch = [from_array(np.stack(s) if k in chosen else s[0])
                     for k, s in enumerate(stacks)]
            got = vmap(call, in_dims=dims)(*batch)
            loop = [call(*[from_array(s[i] if k in chosen else s[0])
                           for k, s in enumerate(stacks)]) for i in range(EXAMPLES)]
            same(got._peek(), np.stack([np.asarray(t._peek()) for t in loop]))


@pytest.mark.parametrize("name", ["add", "matmul", "sum", "take", "reshape", "argsort"])
def test_the_fallback_gives_what_the_rule_gives(name):
    record = PRIMS[name]
    for sample in record.samples(maker(1))[:4]:
        operands = [from_array(np.stack(variants(a))) for a in sample.arrays]
        out = prim(name, *[from_array(a) for a in sample.arrays], attrs=sample.attrs,
                   shape=sample.shape, dtype=sample.dtype)._node.spec
        b = Batch(name, tuple(operands), tuple([True] * len(operands)), sample.attrs, out,
                  EXAMPLES)
        same(one_by_one(b)._peek(), record.batch(b)._peek())


def test_every_primitive_has_a_rule_or_no_operands():
    without = {n for n, p in PRIMS.items() if p.batch is None}
    assert without == {"leaf", "scalar", "full", "iota"}


# ---------------------------------------------------------------- public operations

# What looks at values, and so cannot be mapped (nor can it be in PyTorch).
LOOKS = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount",
         "histc", "histogram", "histogramdd", "searchsorted", "bucketize", "isin", "equal",
         "allclose", "multinomial", "poisson", "binomial", "tensor_split", "cov"}


def _tensors(value, found):
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (list, tuple)):
        for v in value:
            _tensors(v, found)
    elif isinstance(value, dict):
        for v in value.values():
            _tensors(v, found)
    return found


def _with(value, tensors):
    """`value` with its tensors replaced in order."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (list, tuple)):
        parts = [_with(v, tensors) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {k: _with(v, tensors) for k, v in value.items()}
    return value


def tensor_maker(seed):
    arrays = maker(seed)

    def make(*shape, dtype=facula.float32, requires_grad=False, **kw):
        return from_array(arrays(*shape, dtype=dtype, **kw))
    return make


def public():
    return sorted(n for n, r in OPS.items() if r.samples is not None)


@pytest.mark.parametrize("name", public())
def test_operation_against_a_loop(name):
    record = OPS[name]
    short = name.rpartition(".")[2]
    for args, kwargs in record.samples(tensor_maker(zlib.crc32(name.encode())))[:4]:
        given = _tensors([args, kwargs], [])
        if not given or "generator" in kwargs:
            continue
        stacks = [variants(np.array(t._peek())) for t in given]
        if any(from_numpy_dtype(s[0].dtype).kind in "iub" for s in stacks) and short in LOOKS:
            continue

        def call(*tensors, args=args, kwargs=kwargs):
            a, k = _with([list(args), kwargs], iter(tensors))
            return record.fn(*a, **k)

        def outputs(result):
            return _tensors(result, [])

        try:
            loop = [[np.array(t._peek()) for t in
                     outputs(call(*[from_array(s[i]) for s in stacks]))]
                    for i in range(EXAMPLES)]
        except Exception:               # another order of values may be no valid input
            continue
        if not loop[0]:
            continue
        batch = [from_array(np.stack(s)) for s in stacks]
        try:
            got = vmap(lambda *t: tuple(outputs(call(*t))), randomness="same")(*batch)
        except VmapError:
            assert short in LOOKS, f"{name} looks at values"
            continue
        if "random" in record.family or short in ("dropout", "alpha_dropout", "rrelu"):
            continue
        for k, t in enumerate(got):
            same(t._peek(), np.stack([each[k] for each in loop]))
