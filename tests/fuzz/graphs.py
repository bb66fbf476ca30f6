"""Graphs for the fuzzer: what one is, how it is run, compared, shrunk and printed.

A graph is a list of lines.  Each line says the same thing twice, to a framework with PyTorch's
names (`F`) and to the NumPy model (`M`); names are shared.  Shapes are written out, so a graph
from which lines have been taken is again a graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import facula
from facula import config
from facula.graph.record import State, _local
from tests.fuzz import model

__all__ = ["Line", "Graph", "Mismatch", "fresh_recorder", "leaf_value", "run", "check", "failure",
           "shrink", "script"]


class Line(NamedTuple):
    """One operation: for the framework, for the model, the name it makes ('' for none)."""

    code: str
    meaning: str
    out: str
    uses: tuple[str, ...]


class Graph(NamedTuple):
    """`leaves` name -> (seed, shape, dtype, requires_grad); `err` name -> rounding to expect.

    `smooth`: finite differences apply; `fixed`: shapes depend on the leaves' values; `overlaps`:
    something may be written to memory that it is read from, or depends on the layout of results,
    which PyTorch defines otherwise or not at all.
    """

    seed: int
    leaves: dict[str, tuple[int, tuple[int, ...], str, bool]]
    lines: list[Line]
    err: dict[str, float]
    smooth: bool = False
    fixed: bool = False
    overlaps: bool = False


class Mismatch(AssertionError):
    """Two ways of running a graph differ."""


def leaf_value(seed: int, shape: tuple[int, ...], dtype: str) -> Any:
    """Multiples of 1/4 (or small integers): exact in every dtype."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape)).astype(bool)
    if dtype in ("int64", "int32", "uint8"):
        return np.asarray(rng.integers(0 if dtype == "uint8" else -6, 7, shape)).astype(dtype)
    value = np.asarray(rng.integers(-10, 11, shape)) / 4
    if dtype == "complex64":
        value = value + 1j * np.asarray(rng.integers(-10, 11, shape)) / 4
    return np.asarray(value).astype(model.DTYPES[dtype])


@contextmanager
def fresh_recorder(**flags: Any) -> Iterator[None]:
    """Inside, nothing that was recorded before is known, and `flags` are set."""
    rec = _local.rec

    def forget() -> None:
        facula.graph.flush.flush(rec)
        rec.root, rec.states = State(None, ()), 0
        rec.fresh_graph()

    with config.override(**flags):
        forget()
        try:
            yield
        finally:
            rec.graph.handles = []
            rec.root, rec.states = State(None, ()), 0
            rec.fresh_graph()


def array_of(value: Any) -> Any:
    """A tensor's content as an ndarray of its own."""
    value = value.detach()
    if type(value).__module__.startswith("torch"):
        import torch
        if value.dtype == torch.bfloat16:
            return value.float().numpy().astype(model.BF16)
    return np.array(value.resolve_conj().numpy(), copy=True)


def _weights(shape: tuple[int, ...]) -> Any:
    n = int(np.prod(shape))
    return ((np.arange(n) * 7 % 11) / 11 + 0.2).reshape(shape)


def run(graph: Graph, F: Any, shift: int = 0, backward: bool = True) -> dict[str, Any]:
    """What the graph computes: name -> array, `grad NAME` of leaves, `error` of the backward."""
    env: dict[str, Any] = {"F": F, "held": []}
    for name, (seed, shape, dtype, rg) in graph.leaves.items():
        array = leaf_value(seed + shift, shape, dtype)
        if array.dtype == model.BF16:
            t = F.tensor(array.astype("f4")).to(F.bfloat16)
        else:
            t = F.tensor(array)
        env[name] = t.requires_grad_() if rg else t
    for line in graph.lines:
        exec(line.code, env)
    names = [n for n in env if n[0] == "v" and n[1:].isdigit()]
    got: dict[str, Any] = {}
    if backward:
        terms = [n for n in names if env[n].requires_grad and n not in graph.leaves]
        if terms:
            try:
                _loss(F, [env[n] for n in terms]).backward()
            except RuntimeError as error:
                got["error"] = str(error)
            else:
                for n, (_, _, _, rg) in graph.leaves.items():
                    if rg and env[n].grad is not None:
                        got[f"grad {n}"] = array_of(env[n].grad)
    for n in names:
        got[n] = array_of(env[n])
    for k, array in enumerate(env["held"]):
        got[f"held {k}"] = np.array(array)
    return got


def _loss(F: Any, values: list[Any]) -> Any:
    loss = None
    for v in values:
        if v.is_complex():
            v = v.real + 0.5 * v.imag
        w = F.tensor(_weights(tuple(v.shape)))
        term = (v.double() * w).sum()
        loss = term if loss is None else loss + term
    return loss


def meaning(graph: Graph, leaves: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the model computes."""
    env: dict[str, Any] = {"M": model, "np": np, "held": []}
    for name, (seed, shape, dtype, _) in graph.leaves.items():
        env[name] = leaf_value(seed, shape, dtype)
    env.update(leaves or {})
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for line in graph.lines:
            exec(line.meaning, env)
    got = {n: np.array(env[n]) for n in env if n[0] == "v" and n[1:].isdigit()}
    for k, array in enumerate(env["held"]):
        got[f"held {k}"] = np.array(array)
    return got


def compare(a: dict[str, Any], b: dict[str, Any], graph: Graph, who: str,
            grads: float = 1.0) -> None:
    """Raises Mismatch where two runs differ by more than rounding explains."""
    for name in b:
        if name == "error" or name.startswith("grad"):
            continue
        x, y = a[name], b[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            raise Mismatch(f"{who}: {name} is {x.dtype}{x.shape}, expected {y.dtype}{y.shape}")
        err = 0.0 if name.startswith("held") else graph.err.get(name, 0.0)
        if name.startswith("held"):
            err = max([0.0, *graph.err.values()]) if x.dtype.kind not in "bi" else 0.0
        _close(x, y, 20 * err, f"{who}: {name}", graph)
    if "error" in a and "error" in b:
        return
    if "read by 'matmul'" in a.get("error", "") and who.endswith("PyTorch"):
        return      # PyTorch multiplies a copy where it folds batches into rows
    if ("error" in a) != ("error" in b):
        raise Mismatch(f"{who}: backward raised {a.get('error')!r} and {b.get('error')!r}")
    for name in {n for n in (*a, *b) if n.startswith("grad")}:
        x, y = a.get(name), b.get(name)
        if (x is None) != (y is None):
            raise Mismatch(f"{who}: {name} is {x} and {y}")
        if x.dtype != y.dtype or x.shape != y.shape:
            raise Mismatch(f"{who}: {name} is {x.dtype}{x.shape} and {y.dtype}{y.shape}")
        if x.size:
            size = max(float(np.abs(y.astype("c16")).max()), 1.0)
            _close(x, y, grads * size, f"{who}: {name}", graph)


def _close(x: Any, y: Any, atol: float, what: str, graph: Graph) -> None:
    if x.dtype.kind in "bui":
        good = np.array_equal(x, y)
    else:
        good = np.allclose(x.astype("c16"), y.astype("c16"), rtol=0, atol=atol, equal_nan=True)
    if not good:
        with np.errstate(all="ignore"):
            worst = np.abs(x.astype("c16") - y.astype("c16")).max()
        raise Mismatch(f"{what} differs by {worst:.3g} (allowed {atol:.3g}):\n{x}\nexpected\n{y}")


def grad_tolerance(graph: Graph) -> float:
    """Rounding of gradients relative to the largest, from the narrowest dtype in the graph."""
    narrow = 2e-9
    text = " ".join(line.meaning for line in graph.lines)
    for _, _, dtype, _ in graph.leaves.values():
        text += " " + dtype
    for name, tolerance in (("float32", 1e-3), ("complex", 1e-3), ("M.fl", 1e-3),
                            ("float16", 0.3), ("bfloat16", 1.0)):
        if name in text:
            narrow = max(narrow, tolerance)
    return narrow


def check(graph: Graph, torch: Any = None, who: tuple[str, ...] = ("interpreted", "compiled")
          ) -> None:
    """Run the graph every way there is and compare; raises Mismatch (or what facula raised)."""
    expected = meaning(graph)
    tolerance = grad_tolerance(graph)
    results = []
    if "interpreted" in who:
        with fresh_recorder(JIT=False):
            got = run(graph, facula)
        compare(got, expected | {k: v for k, v in got.items() if k[0] in "ge"}, graph,
                "interpreted and NumPy")
        results.append(got)
    if "compiled" in who:
        with fresh_recorder(JIT=True, INTERPRET=False):
            # Other values first: the structure is known when it counts.
            run(graph, facula, shift=0 if graph.fixed else 1000)
            again = run(graph, facula)
        compare(again, expected | {k: v for k, v in again.items() if k[0] in "ge"},
                graph, "compiled and NumPy")
        if results:
            compare(again, results[0], graph, "compiled and interpreted", tolerance)
        results.append(again)
    got = results[-1]
    if graph.smooth and "error" not in got:
        _finite_differences(graph, got)
    if torch is not None and not graph.overlaps:
        try:
            theirs = run(graph, torch)
        except (RuntimeError, TypeError, IndexError, NotImplementedError):
            return      # an operation PyTorch does not do in this dtype, or a view it refuses
        except UserWarning as warning:
            if "ComplexHalf" not in str(warning):
                raise
            return      # a dtype that facula does not have
        if "error" in theirs and "error" not in got:
            return      # it saves more than facula does
        for name, value in theirs.items():
            if name.startswith("grad") and name not in got and not value.any():
                got[name] = value       # zeros where facula knows that nothing depends on it
        compare(got, theirs, graph, "facula and PyTorch", tolerance)


def _finite_differences(graph: Graph, got: dict[str, Any]) -> None:
    """The gradient along one random direction, from the NumPy model alone."""
    rng = np.random.default_rng(graph.seed)
    wrt = [n for n, (_, _, _, rg) in graph.leaves.items() if rg]
    direction = {n: rng.normal(size=graph.leaves[n][1]) for n in wrt}
    base = {n: leaf_value(*graph.leaves[n][:3]) for n in wrt}
    with fresh_recorder(JIT=False):
        env: dict[str, Any] = {"F": facula, "held": []}
        for name, (seed, shape, dtype, rg) in graph.leaves.items():
            t = facula.tensor(leaf_value(seed, shape, dtype))
            env[name] = t.requires_grad_() if rg else t
        for line in graph.lines:
            exec(line.code, env)
        terms = [n for n in env if n[0] == "v" and n[1:].isdigit()
                 and env[n].requires_grad and n not in graph.leaves]
    # A narrower tensor that is written to in place rounds by more than the step below.
    coarse = any(t.requires_grad and t.dtype.name not in ("float64", "complex128")
                 for n, t in env.items() if n[0] == "v" and n[1:].isdigit())
    if not terms or coarse:
        return
    step = 1e-5

    def loss(sign: float) -> float:
        values = meaning(graph, {n: np.asarray(base[n] + sign * step * direction[n])
                                 for n in wrt})
        return sum(float((values[n] * _weights(values[n].shape)).sum()) for n in terms)

    # Richardson's: of two steps, so that what is left of a steep function's error is of order 4.
    wide, narrow = ((loss(h) - loss(-h)) / (2 * h * step) for h in (1, 0.5))
    slope = (4 * narrow - wide) / 3
    ours = sum(float((got[f"grad {n}"] * direction[n]).sum()) for n in wrt if f"grad {n}" in got)
    size = max(1.0, abs(slope), sum(float(np.abs(got[f"grad {n}"]).sum()) for n in wrt
                                    if f"grad {n}" in got))
    if abs(slope - ours) > 1e-5 * size:
        raise Mismatch(f"gradient and finite differences: {ours!r}, expected {slope!r}")


def failure(graph: Graph, **how: Any) -> BaseException | None:
    """What is wrong with the graph, None if nothing is."""
    try:
        check(graph, **how)
    except Exception as error:
        return error
    return None


def shrink(graph: Graph, error: BaseException, seconds: float = 20.0, **how: Any) -> Graph:
    """The graph with every line taken away that its failure does not need."""
    import time
    end = time.monotonic() + seconds

    def without(lines: list[Line], cut: range) -> Graph:
        gone: set[str] = set()
        kept = []
        for i, line in enumerate(lines):
            if i in cut or gone.intersection(line.uses):
                if line.out:
                    gone.add(line.out)
            else:
                kept.append(line)
        used = {u for line in kept for u in line.uses}
        leaves = {n: v for n, v in graph.leaves.items() if n in used}
        return graph._replace(lines=kept, leaves=leaves)

    size = max(len(graph.lines) // 2, 1)
    while True:
        at = len(graph.lines)
        while at > 0 and time.monotonic() < end:
            smaller = without(graph.lines, range(max(at - size, 0), at))
            if len(smaller.lines) < len(graph.lines):
                found = failure(smaller, **how)
                if found is not None and type(found) is type(error):
                    graph = smaller
            at = min(at - size, len(graph.lines))
        if size == 1 or time.monotonic() > end:
            return graph
        size = max(size // 2, 1)


def script(graph: Graph) -> str:
    """The graph as a program."""
    lines = ["import facula as F", "held = []"]
    for name, (seed, shape, dtype, rg) in graph.leaves.items():
        array = leaf_value(seed, shape, dtype)
        grad = ", requires_grad=True" if rg else ""
        value = array.astype("f4").tolist() if array.dtype == model.BF16 else array.tolist()
        build = f"F.tensor({value}, dtype=F.{dtype}{grad})"
        if not array.size:
            build = f"F.zeros({shape}, dtype=F.{dtype}{grad})"
        lines.append(f"{name} = {build}")
    lines += [line.code for line in graph.lines]
    return "\n".join(lines)
