"""Packed operands that a linear map keeps from product to product, and when they are made anew."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import facula
import facula.nn as nn
import facula.nn.functional as F
from facula import config
from facula.curvature import GaussNewtonOperator, conjugate_gradients
from facula.func import linearize
from facula.graph.record import Graph, State, recorder
from facula.runtime.allocator import changed, from_numpy_private
from facula.runtime.program import Program
from facula.schedule import compile as schedule
from facula.schedule import stored
from facula.schedule.executable import Executable, _Part
from tests.schedule.programs import Build, maker

WIDE = 288
"""Wide and deep enough for both operands of its products to be packed."""


@pytest.fixture
def prepared(monkeypatch):
    """The parts that have packed what they keep, one entry each time."""
    seen = []
    prepare = _Part._prepare

    def counting(self, values):
        seen.append(self)
        return prepare(self, values)
    monkeypatch.setattr(_Part, "_prepare", counting)
    with config.override(INTERPRET=False):
        yield seen


def forget():
    """As in a new process: no structure is known."""
    facula.rand(1)._peek()
    rec = recorder()
    rec.root, rec.states = State(None, ()), 0
    rec.fresh_graph()


def network():
    facula.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDE, WIDE), nn.Tanh(), nn.Linear(WIDE, WIDE))
    x, y = facula.rand(WIDE, WIDE), facula.rand(WIDE, WIDE)

    def closure():
        z = model(x)
        return F.mse_loss(z, y), z
    return model, closure


def vector(model, seed=0):
    n = sum(p.numel() for p in model.parameters())
    return facula.from_numpy(np.random.default_rng(seed).standard_normal(n).astype(
        np.float32)).clone()


def product(op, v):
    return np.array((op @ v).numpy())


def plain(monkeypatch, fn):
    """`fn()` where nothing is kept."""
    forget()
    with monkeypatch.context() as m:
        m.setattr(Graph, "last", lambda self, nodes: None)
        out = fn()
    forget()
    return out


def close(got, want):
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def program():
    b, make = Build(), maker()
    x, w = b.leaf(make(WIDE, WIDE)), b.leaf(make(WIDE, WIDE))
    turned = b.op("permute", w, attrs=((1, 0),))
    out = b.op("tanh", b.op("matmul", x, turned))
    return b, x, w, out


def test_what_lasts_is_packed_once(prepared):
    b, x, w, out = program()
    want = Executable(b.steps, [out], {}).run([from_numpy_private(a) for a in b.arrays])[0]
    want = want.array(b.steps[out].spec).copy()
    made = Executable(b.steps, [out], {}, None, frozenset([w]))
    values = [from_numpy_private(a) for a in b.arrays]
    for _ in range(3):
        (got,) = made.run(values)
        assert np.array_equal(got.array(b.steps[out].spec), want)
    assert len(prepared) == 1
    part = made.parts[0]
    assert part.nbytes - part.program.nbytes == part.kept.nbytes >= 4 * WIDE * WIDE


def test_other_content_is_packed_anew(prepared):
    b, x, w, out = program()
    made = Executable(b.steps, [out], {}, None, frozenset([w]))
    values = [from_numpy_private(a) for a in b.arrays]
    made.run(values)
    spec = b.steps[w].spec
    # another buffer; then other content in the same one, as those write who write in place
    for again in range(2):
        new = maker(seed=5 + again)(WIDE, WIDE)
        if again:
            changed(values[1])
            values[1].array(spec)[:] = new
        else:
            values[1] = from_numpy_private(new)
        (got,) = made.run(values)
        close(got.array(b.steps[out].spec), np.tanh(b.arrays[0] @ new.T))
    assert len(prepared) == 3
    # memory that somebody else may write to is looked at every time
    changed(values[1])
    values[1].shared = True
    made.run(values)
    made.run(values)
    assert len(prepared) == 5


def test_a_leaf_that_is_written_over_is_not_kept(prepared):
    b, make = Build(), maker()
    x, w = b.leaf(make(WIDE, WIDE)), b.leaf(make(WIDE, WIDE))
    new = b.op("sub", w, b.op("matmul", x, b.op("permute", w, attrs=((1, 0),))))
    made = Executable(b.steps, [new], {new: w}, None, frozenset([x, w]))
    values = [from_numpy_private(a) for a in b.arrays]
    want = b.arrays[1]
    for _ in range(3):
        (values[1],) = made.run(values)
        want = want - b.arrays[0] @ want.T
        got = values[1].array(b.steps[w].spec)
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
        values[1] = from_numpy_private(got.copy())
        want = got.copy()


def test_there_is_a_limit(prepared, monkeypatch):
    monkeypatch.setattr(schedule, "MOST_KEPT", 1000)
    b, x, w, out = program()
    made = Executable(b.steps, [out], {}, None, frozenset([w]))
    made.run([from_numpy_private(a) for a in b.arrays])
    assert not prepared


def test_a_plan_from_disk_keeps_as_well(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "FEWEST_STEPS", 0)
    with config.override(CACHE_DIR=str(tmp_path), CACHE=True):
        b, x, w, out = program()
        values = [from_numpy_private(a) for a in b.arrays]
        first = Executable(b.steps, [out], {}, None, frozenset([w]))
        again = Executable(b.steps, [out], {}, None, frozenset([w]))
        assert again.parts[0].native.kept == first.parts[0].native.kept != []
        spec = b.steps[out].spec
        assert np.array_equal(first.run(values)[0].array(spec), again.run(values)[0].array(spec))
        other = Executable(b.steps, [out], {})
        assert other.parts[0].native.kept == []
    assert len(prepared) == 2


def test_an_operator_packs_once(prepared, monkeypatch):
    model, closure = network()
    v, u = vector(model), vector(model, 1)
    want = plain(monkeypatch, lambda: [product(GaussNewtonOperator(closure, model), x)
                                       for x in (v, u)])
    assert not prepared
    op = GaussNewtonOperator(closure, model)
    for _ in range(3):
        for x, right in zip((v, u), want):
            close(product(op, x), right)
    assert len(prepared) == 1


def test_parameters_that_change_between_products(prepared, monkeypatch):
    """An operator stays where it was made; `refresh` and new operators see the new values."""
    model, closure = network()
    v = vector(model)
    opt = facula.optim.SGD(model.parameters(), lr=0.1)
    op = GaussNewtonOperator(closure, model)
    first = product(op, v)
    for _ in range(2):
        opt.zero_grad()
        closure()[0].backward()
        opt.step()
        with facula.no_grad():
            model[0].weight.mul_(1.5)
            model[2].weight[3:7] = 2.0
        close(product(op, v), first)
        op.refresh()
        second = product(op, v)
        assert np.abs(second - first).max() > 1e-2 * np.abs(first).max()
        want = plain(monkeypatch, lambda: product(GaussNewtonOperator(closure, model), v))
        close(second, want)
        close(product(GaussNewtonOperator(closure, model), v), want)
        first = second


@pytest.mark.parametrize("how", ["numpy", "from_numpy", "load"])
def test_memory_written_from_outside(how, prepared, monkeypatch):
    """What is written behind facula's back is read as it is read without keeping anything."""
    def run():
        model, closure = network()
        v = vector(model)
        if how == "from_numpy":
            outside = model[0].weight.detach().numpy().copy()
            model[0].weight = nn.Parameter(facula.from_numpy(outside))
        op = GaussNewtonOperator(closure, model)
        out = [product(op, v)]
        for factor in (0.5, 3.0):
            if how == "numpy":
                model[0].weight.detach().numpy()[:] *= factor
            elif how == "from_numpy":
                outside[:] *= factor
            else:
                model.load_state_dict({k: t * factor for k, t in model.state_dict().items()})
            out.append(product(op, v))
            out.append(product(GaussNewtonOperator(closure, model), v))
        return out

    want = plain(monkeypatch, run)
    for got, right in zip(run(), want, strict=True):
        close(got, right)


def test_a_linearised_function(prepared, monkeypatch):
    facula.manual_seed(0)
    w = facula.randn(WIDE, WIDE)
    x, t = facula.randn(WIDE, WIDE), facula.randn(WIDE, WIDE)

    def fn(x):
        return (x @ w.t() * 0.1).tanh() @ w

    def run():
        _, push = linearize(fn, x)
        return np.array(push(t).numpy())

    first = plain(monkeypatch, run)
    assert not prepared
    _, push = linearize(fn, x)
    for _ in range(3):
        close(np.array(push(t).numpy()), first)
    assert len(prepared) == 1
    with facula.no_grad():
        w.mul_(2.0)
        x.add_(1.0)
    close(np.array(push(t).numpy()), first)
    want = plain(monkeypatch, run)
    assert np.abs(want - first).max() > 0.1 * np.abs(first).max()
    close(run(), want)


def test_conjugate_gradients_pack_once(prepared, monkeypatch):
    model, closure = network()
    b = vector(model)

    def solve():
        op = GaussNewtonOperator(closure, model)
        return np.array(conjugate_gradients(op._linear, b, damping=0.1, max_iter=6).x.numpy())

    want = plain(monkeypatch, solve)
    assert not prepared
    close(solve(), want)
    # the first iteration is a program of its own
    assert len(prepared) == len(set(prepared)) <= 2


def test_what_is_kept_goes_with_the_operator(prepared):
    model, closure = network()
    op = GaussNewtonOperator(closure, model)
    product(op, vector(model))
    (part,) = set(prepared)
    assert part.kept.nbytes > 0
    del op
    gc.collect()
    with facula.no_grad():
        for p in model.parameters():
            p.zero_()
    facula.rand(1)._peek()
    assert part.kept.nbytes == 0


def test_a_watched_run_has_no_packing(prepared):
    from facula.profiler.work import kernels_of
    from facula.runtime import watch
    model, closure = network()
    op = GaussNewtonOperator(closure, model)
    v = vector(model)
    first = product(op, v)
    seen = []

    class Watcher:
        def launched(self, program: Program, start, end, stamps):
            seen.append((program, stamps))

        def __getattr__(self, name):
            return lambda *args, **kwargs: None

    watch.watcher = Watcher()
    try:
        close(product(op, v), first)
    finally:
        watch.watcher = None
    (part,) = set(prepared)
    stamps = [s for p, s in seen if p is part.program]
    works = kernels_of(part.program)
    assert len(stamps) == 1 and len(stamps[0]) == len(works) + 1
    assert part.program.n_kernels > len(works)
