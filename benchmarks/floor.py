"""The floor under a figure: what the machine needs at least for the same arithmetic and bytes.

`measure(subject)` runs in a contender's own process, after its rounds.  It takes a profile of some
runs and adds up what their compiled programs have to do at least: the operations of products and
convolutions, each once and counted as plain sums, at the rate at which the machine multiplies and
adds (that of bfloat16 for what is bfloat16); and the bytes of arguments and results at the rate at
which the machine moves as many.  The larger of the two times is the floor.  Both rates are measured
there and then, with the same threads (`facula.profiler.roof`); what fits into a cache is held
against the cache's rate.

Two more numbers stand beside it.  Minimal filtering computes 3x3 convolutions with fewer
multiplications than plain sums have, so the floor of the operations that are left is lower.  And
`kernels` is the sum of the least times of all kernels as they are cut, each with all the bytes that
it reads and writes at the rate of memory: what is lost against it is lost inside of kernels, and
what lies between it and the floor is the cost of what goes from one kernel to the next.
"""

from __future__ import annotations

import math
import time
from typing import Any

__all__ = ["KERNELS", "measure", "share", "sentence"]

KERNELS = 6
"""So many kernels of a profile are shown."""
_WARM = 2
_TIMES = 3
_SECONDS = 0.2


def measure(subject: Any, quick: bool = False) -> dict[str, Any]:
    """The floor of one of `subject.run(n)`, with the profile behind it; times in seconds.

    `quick` measures everything once and briefly.

    Raises ValueError if what ran was not compiled.
    """
    from facula.profiler import profile
    from facula.profiler.roof import WHOLE, Roof, bandwidth
    from facula.profiler.roof import measure as measure_roof
    with profile():                 # kernels get their clocks
        start = time.perf_counter()
        subject.run(_WARM)
        taken = (time.perf_counter() - start) / _WARM
    n = max(1, min(200, round(_SECONDS / (1 + 9 * quick) / max(taken, 1e-6))))
    p, kernels, roof = None, math.inf, None
    # the least disturbed profile, and the best of what was measured of the machine
    for _ in range(1 if quick else _TIMES):
        with profile() as one:
            subject.run(n)
        if not one.launches:
            raise ValueError("there is no floor: no compiled program was run")
        seconds = sum([r.seconds for r in one.rows()])
        if seconds < kernels:
            p, kernels = one, seconds
        now = measure_roof()
        roof = now if roof is None else Roof(*[max(a, b) if a and b else None
                                               for a, b in zip(roof, now, strict=True)])
    demand = p.demand()
    read, written = demand.read / n, demand.written / n
    memory = min(bandwidth(size).seconds(read, written)
                 for size in (round(read + written), WHOLE))
    arithmetic = roof.arithmetic((demand.products - demand.short) / n, demand.short / n)
    left = roof.arithmetic((demand.products - demand.short - demand.spared) / n, demand.short / n)
    rows = p.rows()
    total = sum([r.seconds for r in rows])
    return {
        "seconds": max(arithmetic, memory), "arithmetic": arithmetic, "memory": memory,
        "flops": demand.products / n, "bfloat16 flops": demand.short / n,
        "flops spared": demand.spared / n, "left": max(left, memory),
        "read": read, "written": written,
        "GFLOP/s": roof.gflops, "bfloat16 GFLOP/s": roof.short, "GB/s": roof.gbytes,
        "kernels": sum([r.work.least(roof) * r.calls for r in rows]) / n,
        "profile": [{
            "kernel": r.work.operations, "calls": r.calls / n, "share": r.seconds / total,
            "seconds": r.seconds / n, "GFLOP/s": r.work.flops * r.calls / r.seconds / 1e9,
            "GB/s": r.work.bytes * r.calls / r.seconds / 1e9,
            "roof": r.work.least(roof) * r.calls / r.seconds} for r in rows[:KERNELS]],
        "other kernels": len(rows[KERNELS:]),
        "share of others": sum([r.seconds for r in rows[KERNELS:]]) / total,
    }


def share(floor: dict[str, Any], seconds: float) -> float:
    """The floor as a share of what was measured: 1 is as fast as the machine."""
    return float(floor["seconds"]) / seconds


def _size(x: float, unit: str) -> str:
    """A number with three digits and the unit's prefix."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= 0.9995 * scale:
            x /= scale
            return f"{x:.{max(0, 2 - len(str(int(x))) + 1)}f} {prefix}{unit}"
    return f"{x:.0f} {unit}"


def _time(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= 0.9995 * scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 999 * scale \
                else f"{seconds / scale:.0f} {unit}"
    return f"{seconds * 1e6:.3g} us"


def sentence(floor: dict[str, Any]) -> str:
    """What the floor is made of, in words."""
    flops, short = floor["flops"], floor["bfloat16 flops"]
    rates = [f"{_size(n, 'FLOP')} at {rate:.0f} GFLOP/s" + kind
             for n, rate, kind in ((flops - short, floor["GFLOP/s"], ""),
                                   (short, floor["bfloat16 GFLOP/s"] or floor["GFLOP/s"],
                                    " (bfloat16)")) if n]
    moved = floor["read"] + floor["written"]
    text = f"{_time(floor['seconds'])}: " + "; ".join([
        " and ".join(rates) + f" take {_time(floor['arithmetic'])}" if rates else "no products",
        f"{_size(moved, 'B')} in and out at {moved / max(floor['memory'], 1e-12) / 1e9:.0f} GB/s "
        f"take {_time(floor['memory'])}"])
    if floor["flops spared"]:
        text += (f"; minimal filtering leaves {_size(flops - floor['flops spared'], 'FLOP')}, "
                 f"and a floor of {_time(floor['left'])}")
    return text + f"; the least times of its kernels add up to {_time(floor['kernels'])}"
