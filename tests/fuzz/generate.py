"""Random graphs, drawn while the NumPy model runs beside.

A line is kept if the model can run it, its values stay small and finite, and rounding does not
grow too much in it.  Rounding is followed by running the line again on perturbed inputs; what is
discontinuous is only drawn on values that are exact.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np

from tests.fuzz import functions, model, movements, writes  # noqa: F401  (they enter operations)
from tests.fuzz.graphs import Graph, Line, leaf_value
from tests.fuzz.operations import OPERATIONS, SMOOTH, Draft

__all__ = ["generate", "Builder"]

SHAPES = [(), (1,), (3,), (4,), (2, 3), (3, 3), (1, 3), (3, 1), (4, 3), (2, 1, 3), (2, 3, 4),
          (1, 1), (2, 4), (5,), (6,), (4, 2), (2, 2, 2)]
EMPTY = [(0,), (0, 3), (2, 0, 3), (3, 0)]
LONG = (7, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 129)
"""Around the lengths of vectors and of what is unrolled."""
KINDS = ["float32"] * 5 + ["float64"] * 3 + ["float16", "bfloat16", "int64", "int64", "int32",
                                              "uint8", "bool", "bool", "complex64"]


def base_of(a: Any) -> Any:
    """The array that owns the memory (as_strided puts an object of its own between)."""
    while a.base is not None:
        below = a.base if isinstance(a.base, np.ndarray) else getattr(a.base, "base", None)
        if not isinstance(below, np.ndarray):
            break
        a = below
    return a


class Builder:
    """The state of a graph being drawn."""

    def __init__(self, seed: int, grad: bool, smooth: bool):
        self.rng = random.Random(seed)
        self.seed = seed
        self.grad = grad
        self.smooth = smooth
        self.env: dict[str, Any] = {"M": model, "np": np, "held": []}
        self.err: dict[int, float] = {}          # by the id of the memory
        self.keep: list[Any] = []
        self.leaves: dict[str, tuple[int, tuple[int, ...], str, bool]] = {}
        self.frozen: set[int] = set()            # memory of leaves that require gradients
        self.lines: list[Line] = []
        self.count = 0
        self.length = {n: n for n in range(7)}   # what the sizes in SHAPES stand for
        self.most, self.bound = 200, 100         # elements of an array, and how large they may be
        self.fixed = False                       # shapes depend on values
        self.overlaps = False                    # something is written to what it is read from

    # -- choosing
    def names(self) -> list[str]:
        return [n for n in self.env if n[0] == "v"]

    def array(self, name: str) -> Any:
        return self.env[name]

    def pick(self, want: Any = lambda a: True, recent: bool = True) -> str | None:
        """A name whose array suits; later ones are likelier."""
        names = [n for n in self.names() if want(self.env[n])]
        if not names:
            return None
        if recent and self.rng.random() < 0.5:
            names = names[-4:]
        return self.rng.choice(names)

    def exact(self, name: str) -> bool:
        return self.error(name) == 0.0

    def error(self, name: str) -> float:
        return self.err.get(id(base_of(self.env[name])), 0.0)

    def writable(self, name: str) -> bool:
        a = self.env[name]
        if id(base_of(a)) in self.frozen:
            return False
        return not any(s == 0 and n > 1 for s, n in zip(a.strides, a.shape))

    # -- making
    def leaf(self, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> str:
        rng = self.rng
        if dtype is None:
            dtype = "float64" if self.smooth else rng.choice(KINDS)
        if shape is None:
            shape = rng.choice(EMPTY if rng.random() < 0.06 and not self.smooth else SHAPES)
            shape = tuple([self.length[n] for n in shape])
        name = f"v{self.count}"
        self.count += 1
        seed = self.seed * 1000 + self.count
        rg = self.grad and model.kind(model.DTYPES[dtype]) in "fc" and rng.random() < 0.6
        self.leaves[name] = (seed, shape, dtype, rg)
        self.env[name] = array = leaf_value(seed, shape, dtype)
        self.keep.append(array)
        if rg:
            self.frozen.add(id(array))
        return name

    def add(self, draft: Draft) -> bool:
        """Append a line if the model and the bounds allow it."""
        out = f"v{self.count}" if draft.new else ""
        code = draft.code.replace("OUT", out)
        meaning = draft.meaning.replace("OUT", out)
        uses = draft.uses
        if draft.exact_only and not all(self.exact(u) for u in uses):
            return False
        target = draft.target
        saved = base_of(self.env[target]).copy() if target else None
        perturbed = {}
        worst = max([self.error(u) for u in uses], default=0.0)
        if worst:
            rng = np.random.default_rng(self.count)
            for u in uses:
                a, e = self.env[u], self.error(u)
                # Of different sizes, so that a sum does not cancel them.
                noise = e * rng.choice([-1.5, -1.0, 0.6, 1.2], a.shape)
                if a.dtype.kind == "c":              # in both parts, whichever is read
                    noise = noise + 1j * e * rng.choice([-1.5, -1.0, 0.6, 1.2], a.shape)
                perturbed[u] = np.asarray(
                    (a.astype("c16" if a.dtype.kind == "c" else "f8") + noise).astype(a.dtype)
                    if e and a.dtype.kind not in "bui" else a.copy())
        result = target or out
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(meaning, self.env)
                a = self.env[result] if result else None
                wrong = a is not None and not self._tame(a)
                error = 0.0
                if a is not None and not wrong and a.dtype.kind not in "bui":
                    size = float(np.abs(a.astype("c16")).max()) if a.size else 0.0
                    eps = model.EPS[model.NAMES[a.dtype]]
                    # What is not exact rounds anew where it is copied into a narrower dtype.
                    narrowed = worst and any(
                        model.EPS.get(model.NAMES[self.env[u].dtype], 0.0) < eps for u in uses)
                    if not draft.exact or narrowed:
                        terms = max([self.env[u].size for u in uses], default=1)
                        error = 2 * eps * max(size, 1e-3) * max(1.0, terms ** 0.5 / 16)
                    if worst:
                        env = {**self.env, **perturbed, "held": []}
                        exec(meaning, env)
                        b = env[result]
                        moved = np.abs(b.astype("c16") - a.astype("c16"))
                        error += 2 * (float(moved.max()) if a.size else 0.0)
                        if draft.exact:
                            error = max(error, worst if draft.view else 0.0)
                    wrong = not error <= 0.05 * max(1.0, size)
        except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError):
            wrong = True
        if wrong:
            if saved is not None:
                base_of(self.env[target])[...] = saved
            if out:
                self.env.pop(out, None)
            return False
        if out:
            array = self.env[out]
            assert isinstance(array, np.ndarray), meaning
            memory = id(base_of(array))
            self.keep.append(array)
            self.count += 1
            if not draft.view:
                self.err[memory] = error
        elif target:
            memory = id(base_of(self.env[target]))
            self.err[memory] = max(self.err.get(memory, 0.0), error)
        self.lines.append(Line(code, meaning, out, uses))
        return True

    def lengthen(self) -> None:
        """From now on, let some sizes stand for more than a vector has lanes."""
        rng = random.Random(self.seed)
        for n in range(2, 7):
            if rng.random() < 0.5:
                self.length[n] = rng.choice(LONG)
        self.most, self.bound = 20_000, 1000

    def _tame(self, a: Any) -> bool:
        if a.dtype.kind in "bu" or not a.size:
            return a.size <= self.most
        return a.size <= self.most and bool((np.abs(a.astype("c16")) <= self.bound).all())

    def finish(self) -> Graph:
        used = {u for line in self.lines for u in line.uses}
        err = {n: self.error(n) for n in self.names()}
        leaves = {n: v for n, v in self.leaves.items() if n in used}
        return Graph(self.seed, leaves, self.lines, err, self.smooth, self.fixed,
                     self.overlaps)


def generate(seed: int, length: int | None = None) -> Graph:
    """The graph of this seed."""
    rng = random.Random(seed * 7919)
    grad = rng.random() < 0.5
    smooth = grad and rng.random() < 0.5
    b = Builder(seed, grad, smooth)
    if seed % 3 == 2 and not smooth:        # differences take a run for each element
        b.lengthen()
    if length is None:
        length = 200 if rng.random() < 0.01 else rng.randint(5, 25)
    for _ in range(rng.randint(2, 4)):
        b.leaf()
    table = SMOOTH if smooth else OPERATIONS
    makers = list(table)
    weights = [table[m] for m in makers]
    for _ in range(length * 8):
        if len(b.lines) >= length:
            break
        if rng.random() < 0.05:
            b.leaf()
        draft = rng.choices(makers, weights)[0](b)
        if draft is not None:
            b.add(draft)
    return b.finish()
