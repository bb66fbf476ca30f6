"""Compiled programs against the NumPy interpreter: every primitive, and small graphs."""

from __future__ import annotations

import pytest

from facula import dtypes as d
from facula.ops.table import PRIMS
from tests.schedule.programs import Build, maker

DTYPES = [d.float32, d.float64, d.float16, d.bfloat16, d.int64, d.uint8, d.bool_, d.complex64]


@pytest.mark.parametrize("name", sorted(set(PRIMS) - {"leaf", "scalar"}))
def test_primitive(name: str) -> None:
    record = PRIMS[name]
    build = Build()
    outputs = []
    seen = set()
    for dtype in DTYPES:
        for s in record.samples(maker(dtype)):
            specs = tuple((a.shape, a.dtype.name) for a in s.arrays)
            if (specs, s.attrs, s.shape, s.dtype) in seen:
                continue
            seen.add((specs, s.attrs, s.shape, s.dtype))
            before = len(build.steps), len(build.arrays)
            inputs = [build.leaf(a) for a in s.arrays]
            try:
                outputs.append(build.op(name, *inputs, attrs=s.attrs, shape=s.shape,
                                        dtype=s.dtype))
            except TypeError:           # a dtype that the primitive does not take
                del build.steps[before[0]:], build.arrays[before[1]:]
    if outputs:
        build.check(*outputs)
