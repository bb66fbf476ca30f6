"""Plans on disk: what a schedule came to, found by the steps that it was made from.

Planning a training step of a deep network takes a good part of a second, and gives the same plan
in every process.  So a plan lies beside the machine code of its kernels, under a key that is made
of everything that it depends on: the steps, what is wanted of them, the processor, and the source
of the compiler itself.  A plan whose kernels are no longer all there is made anew.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import marshal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facula import config
from facula.codegen.target import target
from facula.dtype import DType
from facula.graph.spec import Spec, Step
from facula.runtime import cache
from facula.runtime.jit import LoadedKernel, host, load_kernels
from facula.runtime.plan import KernelPlan, PhasePlan, ProgramPlan
from facula.schedule.compile import Native, Report

__all__ = ["key_of", "load", "store", "FEWEST_STEPS"]

FEWEST_STEPS = 32
"""Smaller programs are planned sooner than looked up."""

_PARTS = [f.name for f in dataclasses.fields(ProgramPlan) if f.name != "phases"]
_KERNEL = [f.name for f in dataclasses.fields(KernelPlan) if f.name != "llvm_text"]
_REPORT = [f.name for f in dataclasses.fields(Report)]
_NATIVE = [f.name for f in dataclasses.fields(Native) if f.name not in ("plan", "reports")]


@functools.lru_cache(maxsize=None)
def _compiler() -> str | None:
    """A hash of the source that turns steps into plans; None where it cannot be read."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    try:
        for folder in ("schedule", "groups", "codegen", "ops/primitive"):
            for path in sorted((root / folder).rglob("*.py")):
                digest.update(f"{path.relative_to(root)}:".encode())
                digest.update(path.read_bytes())
    except OSError:
        return None
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Something whose `repr` tells it from everything else.  TypeError if there is none."""
    if value is None or isinstance(value, (bool, int, str, bytes, complex)):
        return value
    if isinstance(value, float):
        return "float", repr(float(value))
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    if isinstance(value, DType):
        return "dtype", value.name
    if isinstance(value, Spec):
        return "spec", value.shape, value.dtype.name
    raise TypeError(f"a {type(value).__name__} among the attributes of a step")


def key_of(steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int],
           forms: bool = False, lasting: frozenset[int] = frozenset()) -> str | None:
    """The key of the plan of these steps; None if it is not kept on disk.  `forms` is whether its
    kernels are those of several sizes, `lasting` as for `build`."""
    if not config.flag.CACHE or len(steps) < FEWEST_STEPS:
        return None
    source = _compiler()
    if source is None:
        return None
    try:
        text = repr([(s.op, _plain(s.attrs), s.inputs, s.spec.shape, s.spec.dtype.name, s.mask,
                      s.view) for s in steps])
    except TypeError:
        return None
    return cache.key_of("plan of forms" if forms else "plan", source,
                        f"{sys.version_info[:2]}/{marshal.version}", repr(host()),
                        repr((target(), config.flag.WINOGRAD)), text, repr(list(outputs)),
                        repr(sorted(donations.items())), repr(sorted(lasting)))


def store(key: str, native: Native, kernels: Sequence[LoadedKernel]) -> None:
    """Keep a plan, and which machine code its kernels are."""
    plan = native.plan
    data = ([[[getattr(k, n) for n in _KERNEL] for k in phase.kernels] for phase in plan.phases],
            [getattr(plan, n) for n in _PARTS],
            [[getattr(r, n) for n in _REPORT] for r in native.reports],
            [getattr(native, n) for n in _NATIVE], [k.key for k in kernels])
    try:
        cache.store(key, marshal.dumps(data))
    except ValueError:                      # something in it is not plain data
        return


def load(key: str) -> tuple[Native, list[LoadedKernel]] | None:
    """The plan that was kept under `key`, with its kernels; None if any of it is missing."""
    payload = cache.load(key)
    if payload is None:
        return None
    try:
        phases, parts, reports, native, keys = marshal.loads(payload)
        plan = ProgramPlan(
            phases=tuple([PhasePlan(tuple([KernelPlan(llvm_text="", **dict(zip(_KERNEL, row)))
                                           for row in rows])) for rows in phases]),
            **dict(zip(_PARTS, parts)))
        found = Native(plan=plan, reports=[Report(**dict(zip(_REPORT, r))) for r in reports],
                       **dict(zip(_NATIVE, native)))
    except (ValueError, EOFError, TypeError):
        return None
    kernels = load_kernels([(k.name, code) for k, code in zip(
        [k for phase in plan.phases for k in phase.kernels], keys)])
    return None if kernels is None else (found, kernels)
