"""Programs that a user would write: `python -m tests.emulated.programs [emulated] FILE`.

Saves their results in FILE, computed here or, with `emulated`, by code for AArch64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

PROGRAMS: dict[str, Callable[[], list[np.ndarray]]] = {}


def program(f: Callable[[], list[np.ndarray]]) -> Callable[[], list[np.ndarray]]:
    PROGRAMS[f.__name__] = f
    return f


def _array(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _numpy(*tensors: object) -> list[np.ndarray]:
    return [t.double().numpy() for t in tensors]  # type: ignore[attr-defined]


@program
def products() -> list[np.ndarray]:
    import facula
    out = []
    for m, n, k in ((1, 1, 1), (5, 3, 7), (1, 40, 33), (70, 1, 50), (65, 77, 100), (130, 70, 300)):
        a, b = facula.tensor(_array(0, m, k)), facula.tensor(_array(1, n, k))
        out += _numpy(a @ b.t(), (a @ b.t() + b[:, 0]).relu(), a.double() @ b.double().t())
    batch = facula.tensor(_array(2, 3, 20, 30)) @ facula.tensor(_array(3, 3, 30, 17))
    return [*out, *_numpy(batch)]


@program
def elementwise() -> list[np.ndarray]:
    import facula
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, -1.0], np.float32)
    x = facula.tensor(np.concatenate([odd, _array(0, 120) * 3]))
    names = ("exp", "log", "sin", "cos", "tan", "tanh", "sqrt", "rsqrt", "erf", "log1p", "expm1",
             "atan", "floor", "round", "sign", "sigmoid", "abs")
    out = _numpy(*[getattr(x, name)() for name in names], x ** 2.5, x.clamp(-1, 1),
                 x.double().exp())
    whole = facula.tensor((_array(1, 64) * 1000).astype(np.int64))
    return out + _numpy(whole // 7, whole % 7, whole << 2, (whole > 3).to(facula.int32),
                        facula.tensor(_array(2, 64) * 100).to(facula.int8))


@program
def reductions() -> list[np.ndarray]:
    import facula
    x = facula.tensor(_array(0, 7, 33, 20))
    return _numpy(x.sum(), x.sum(1), x.mean((0, 2)), x.amax(2), x.argmin(1), x.var(2), x.prod(2),
                  x.softmax(2), x.logsumexp(1), x.cumsum(1), x.norm(), (x > 0).all(0),
                  facula.nn.functional.layer_norm(x, (20,)))


@program
def convolutions() -> list[np.ndarray]:
    import facula
    F, out = facula.nn.functional, []
    for channels, more, size, how in ((1, 32, 3, {}), (16, 16, 3, {"padding": 1}),
                                      (8, 12, 3, {"stride": 2, "dilation": 2}),
                                      (12, 12, 3, {"groups": 12, "padding": 1}),
                                      (8, 20, 1, {})):
        x = facula.tensor(_array(0, 2, channels, 13, 12), requires_grad=True)
        w = facula.tensor(_array(1, more, channels // how.get("groups", 1), size, size),
                          requires_grad=True)
        y = F.conv2d(x, w, **how)
        (y * y).sum().backward()
        out += _numpy(y.detach(), x.grad, w.grad)
    return out


@program
def sixteen_bits() -> list[np.ndarray]:
    import facula
    x = facula.tensor(_array(0, 40, 60))
    out = []
    for dtype in (facula.bfloat16, facula.float16):
        y = x.to(dtype)
        out += _numpy(y, y * y + 1, y.exp(), y @ y.t(), y.sum(1), (x * 1e-6).to(dtype))
    return out


@program
def training() -> list[np.ndarray]:
    import facula
    nn, out = facula.nn, []
    for optimizer in (facula.optim.SGD, facula.optim.AdamW):
        facula.manual_seed(0)
        net = nn.Sequential(nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 16), nn.Dropout(0.2),
                            nn.GELU(), nn.Linear(16, 10))
        update = optimizer(net.parameters(), lr=0.01)
        x, y = facula.tensor(_array(1, 24, 40)), facula.tensor(np.arange(24) % 10)
        for _ in range(4):
            update.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            update.step()
            out += _numpy(loss.detach())
        out += _numpy(*[p.detach() for p in net.parameters()])
    return out


if __name__ == "__main__":
    if "emulated" in sys.argv:
        from tests.emulated import plugin
    found = {}
    for name, function in PROGRAMS.items():
        for k, array in enumerate(function()):
            found[f"{name}/{k}"] = array
    if "emulated" in sys.argv:
        from facula.runtime.jit import statistics
        assert plugin.machine is not None and plugin.machine.calls > 100, "nothing was emulated"
        assert statistics["compiled"] + statistics["loaded"] > 50
    np.savez(sys.argv[-1], **found)
