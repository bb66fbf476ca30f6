"""Compiled functions: what is guarded, what is refused, and what comes out of them."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import facula
from facula import nn, optim
from tests.compile.test_compile import (
    _native,
    compare,
    data,
    mlp,
    plain,
)

__all__ = ["_native"]


def test_inference():
    model = mlp(nn.Dropout(0.5)).eval()
    fast = facula.compile(model)
    with facula.no_grad():
        for i in range(10):
            x, _ = data(seed=i)
            assert fast(x).tolist() == model(x).tolist()
    assert fast._call.replays >= 8, fast.explain()
    assert dict(fast.named_parameters()).keys() == {f"_orig_mod.{k}" for k in
                                                    dict(model.named_parameters())}
    fast.train()
    assert model.training and model[2].training
    x, y = data()
    loss = nn.functional.cross_entropy(fast(x), y)
    loss.backward()
    assert model[0].weight.grad is not None
    fast.eval()
    with facula.no_grad():
        a, b = fast(x), model(x)
        assert a.tolist() == b.tolist()


def test_returned_structures():
    @facula.compile
    def fn(d, k=2):
        a = d["x"] * k
        return {"a": a, "b": [a.T, (a + 1).view(-1)], "x": d["x"], "n": (3, None, "s")}
    for i in range(5):
        x = facula.tensor([[1.0, 2.0], [3.0, float(i)]])
        out = fn({"x": x}, k=3)
        assert out["x"] is x and out["n"] == (3, None, "s")
        assert out["a"].tolist() == (x * 3).tolist()
        assert out["b"][0].tolist() == (x * 3).T.tolist()
        assert out["b"][1].tolist() == (x * 3 + 1).view(-1).tolist()
        out["b"][0][0, 0] = 7.0
        assert out["a"][0, 0].item() == 7.0, "the view shares its base's memory"
    assert fn.replays >= 3, fn.explain()


def test_in_place_on_arguments():
    @facula.compile
    def fn(x, y):
        x.add_(y).mul_(2)
        return x
    x, ref = facula.zeros(3), facula.zeros(3)
    x.sum().item(), ref.sum().item()
    for i in range(6):
        y = facula.tensor([1.0, 2.0, float(i)])
        assert fn(x, y) is x
        ref.add_(y).mul_(2)
        assert x.tolist() == ref.tolist() and x._version == ref._version
    assert fn.replays >= 3, fn.explain()
    z = facula.tensor([1.0, 2.0, 3.0])
    fn(z, z)
    assert z.tolist() == [4.0, 8.0, 12.0], "one tensor as both arguments"
    w = facula.tensor([1.0, 2.0, 3.0, 4.0])
    fn(w[:3], w[1:])
    assert w.tolist() == [6.0, 10.0, 14.0, 4.0], "views of one tensor"


def test_same_tensor_twice_then_two():
    @facula.compile
    def fn(x, y):
        return x * 2 + y
    a, b = facula.tensor([1.0]), facula.tensor([10.0])
    for _ in range(3):
        assert fn(a, a).item() == 3.0
    for _ in range(3):
        assert fn(a, b).item() == 12.0


def test_results_are_new_each_time():
    @facula.compile
    def fn(x):
        return x + 1
    outs = [fn(facula.tensor([float(i)])) for i in range(6)]
    assert [o.item() for o in outs] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_numpy_argument_that_changes():
    array = np.zeros(4, np.float32)
    x = facula.from_numpy(array)
    fn = facula.compile(lambda t: t * 2)
    for i in range(5):
        array[:] = i
        assert fn(x).tolist() == [2.0 * i] * 4


def test_random_numbers():
    def fn(x):
        return x + facula.rand(3) + facula.randn(3)
    fast = facula.compile(fn)
    x = facula.tensor([0.0, 0.0, 0.0])
    facula.manual_seed(5)
    want = [fn(x).tolist() for _ in range(6)]
    facula.manual_seed(5)
    assert [fast(x).tolist() for _ in range(6)] == want
    assert fast.replays >= 4, fast.explain()


# ---------------------------------------------------------------- what a replay depends on

SCALE = 2.0


class Config:
    factor = 3.0

    def __init__(self):
        self.shift = 1.0
        self.terms = [1.0]


def test_globals_cells_and_attributes(monkeypatch):
    config, table, size = Config(), {"k": 1.0}, 1

    def fn(x, bias=0.0):
        return x * SCALE + config.shift + config.factor + table["k"] + sum(config.terms) + size \
            + bias
    fast = facula.compile(fn)
    x = facula.tensor([1.0])

    def check():
        for _ in range(3):
            assert fast(x).item() == fn(x).item()
    check()
    assert fast.replays
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    check()
    config.shift = 7.0
    check()
    monkeypatch.setattr(Config, "factor", 4.0)
    check()
    table["k"] = 9.0
    check()
    config.terms.append(2.0)
    check()
    size = 3
    check()
    config = Config()
    check()
    assert fast(x, 1.0).item() == fn(x, 1.0).item()
    assert fast(x, bias=2.0).item() == fn(x, bias=2.0).item()
    assert fast(facula.tensor([1])).dtype is fn(facula.tensor([1])).dtype
    table["k"] = 1
    check()


def test_types_of_numbers_are_told_apart():
    fast = facula.compile(lambda x, k: x * k)
    x = facula.tensor([2])
    for k in (1, 1.0, True, 1):
        assert fast(x, k).dtype is (x * k).dtype
        assert fast(x, k).tolist() == (x * k).tolist()
    y = facula.tensor([2.0])
    for k in (0.0, -0.0, 0.0):
        for _ in range(2):
            assert str(fast(y, k).item()) == str(2.0 * k)


def test_values_asked_for_are_refused():
    def fn(x):
        if x.sum().item() > 0:
            return x + 1
        return x - 1
    fast = facula.compile(fn)
    for v in (1.0, 1.0, 1.0, -1.0, -1.0, 1.0):
        assert fast(facula.tensor([v])).item() == fn(facula.tensor([v])).item()
    assert fast.replays == 0 and "value was asked for" in fast.explain()
    assert "test_public_functions.py" in fast.explain()


@pytest.mark.parametrize("read", [
    lambda table, t: table[t], lambda table, t: table[t[:1]],
    lambda table, t: table[facula.arange(2), t], lambda table, t: table.scatter(0, t[None], 5.0)])
def test_rows_that_a_tensor_names_are_looked_up_when_replayed(read):
    """Also where the positions are known when the call is made, and one out of range is found."""
    table = facula.arange(12.0).reshape(4, 3)
    fast = facula.compile(lambda t: read(table, t) * 2)
    for rows in ([0, 1], [2, 0], [1, 1], [2, 1]):
        t = facula.tensor(rows)
        np.testing.assert_array_equal(fast(t).numpy(), (read(table, t) * 2).numpy())
    assert fast.replays == 3
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        fast(facula.tensor([9, 0])).numpy()


def test_counters_and_lists_are_seen():
    state, seen = {"n": 0}, []

    def fn(x):
        state["n"] += 1
        seen.append(x)
        return x * state["n"]
    fast = facula.compile(fn)
    assert [fast(facula.tensor([1.0])).item() for _ in range(10)] == [float(i) for i in
                                                                    range(1, 11)]
    assert len(seen) == 10 and fast.replays == 0


def test_something_kept_out_of_sight():
    kept = []
    keep = kept.append

    def fn(x):
        y = x + 1
        keep(y)
        return y * 2
    fast = facula.compile(fn)
    for i in range(4):
        fast(facula.tensor([float(i)]))
    assert [k.item() for k in kept] == [1.0, 2.0, 3.0, 4.0]


def test_python_random_numbers_are_refused():
    import random

    def fn(x):
        return x * random.random()
    fast = facula.compile(fn)
    outs = {fast(facula.tensor([1.0])).item() for _ in range(5)}
    assert len(outs) == 5


def test_data_from_outside_is_refused():
    array = np.ones(2, np.float32)
    fast = facula.compile(lambda x: x + facula.tensor(array))
    for i in range(4):
        array[:] = i
        assert fast(facula.zeros(2)).tolist() == [float(i)] * 2
    assert fast.replays == 0


def test_modes():
    w = nn.Parameter(facula.tensor([2.0]))

    def fn(x):
        return x * w
    fast = facula.compile(fn)
    x = facula.tensor([3.0])
    for _ in range(3):
        with facula.no_grad():
            assert not fast(x).requires_grad
    y = fast(x)
    assert y.requires_grad
    y.backward()
    assert w.grad.item() == 3.0
    with facula.no_grad():
        assert not fast(x).requires_grad
    assert fast.replays >= 2
    facula.set_default_dtype(facula.float64)
    try:
        half = facula.compile(lambda t: t / 2)
        assert half(facula.tensor([1])).dtype is facula.float64
    finally:
        facula.set_default_dtype(facula.float32)
    assert half(facula.tensor([1])).dtype is facula.float32


def test_gradient_of_an_argument():
    def fn(x):
        x.grad = None
        (x * x).sum().backward()
        return x.grad
    fast = facula.compile(fn)
    for i in range(5):
        x = facula.tensor([1.0, float(i)], requires_grad=True)
        g = fast(x)
        assert g is x.grad and g.tolist() == [2.0, 2.0 * i]
    assert fast.replays >= 3, fast.explain()


def test_gradient_hooks_run():
    seen = []
    w = nn.Parameter(facula.tensor([2.0]))

    def fn(x):
        w.grad = None
        (w * x).sum().backward()
    fast = facula.compile(fn)
    x = facula.tensor([3.0])
    for _ in range(4):
        fast(x)
    handle = w.register_hook(lambda g: seen.append(1) or g * 2)
    for _ in range(3):
        fast(x)
    assert len(seen) == 3 and w.grad.item() == 6.0
    handle.remove()
    fast(x)
    assert w.grad.item() == 3.0


def test_errors():
    w = nn.Parameter(facula.ones(4, 2))
    opt = optim.SGD([w], lr=0.1)

    def step(i):
        opt.zero_grad()
        w[i + 0].sum().backward()
        opt.step()
    fast = facula.compile(step)
    for _ in range(4):
        fast(facula.tensor([1, 2]))
    assert fast.replays, fast.explain()
    before = w.tolist()
    with pytest.raises(IndexError):
        fast(facula.tensor([1, 99]))
        w.tolist()
    assert w.grad is None and len(w.tolist()) == len(before)
    fast(facula.tensor([1, 2]))
    assert w.grad is not None
    with pytest.raises(facula.ShapeError):
        facula.compile(lambda a, b: a + b)(facula.zeros(2), facula.zeros(3))


def test_methods_and_options():
    class Trainer:
        def __init__(self):
            self.k = 2.0

        @facula.compile
        def run(self, x):
            return x * self.k

    t, u = Trainer(), Trainer()
    u.k = 5.0
    x = facula.tensor([1.0])
    for _ in range(4):
        assert t.run(x).item() == 2.0 and u.run(x).item() == 5.0
    t.k = 3.0
    assert t.run(x).item() == 3.0
    fast = facula.compile(t.run, dynamic=True, mode="max-autotune", backend="inductor")
    assert fast(x).item() == 3.0

    @facula.compile(fullgraph=False)
    def fn(x):
        """Its text."""
        return x + 1
    assert fn(x).item() == 2.0 and fn.__doc__ == "Its text." and fn.__name__ == "fn"
    assert facula.compile(fn) is fn
    assert facula.compile(len, disable=True) is len
    with pytest.raises(TypeError):
        facula.compile(3)
    assert "replayed" in facula.compile.explain() and "replayed" in facula.explain()


def test_fullgraph_says_what_stands_against_it():
    fast = facula.compile(lambda x: x * x.item(), fullgraph=True)
    with pytest.raises(RuntimeError, match="value was asked for"):
        for _ in range(20):
            fast(facula.tensor(2.0))


def test_nothing_is_kept_alive():
    model = mlp()
    opt = optim.Adam(model.parameters())

    @facula.compile
    def step(x, y):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss
    import weakref
    x, y = data()
    for _ in range(5):
        loss = step(x, y)
    gone = weakref.ref(x), weakref.ref(loss), weakref.ref(loss._node)
    del x, y, loss
    gc.collect()
    assert [g() for g in gone] == [None, None, None]


def test_other_threads():
    import threading
    fn = facula.compile(lambda x: (x * 2).sum())
    bad = []

    def work(k):
        for i in range(50):
            v = float(k * 100 + i)
            if fn(facula.tensor([v, 1.0])).item() != 2 * v + 2:
                bad.append((k, i))
    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad


@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_checked_replays(name, monkeypatch):
    from facula import config
    monkeypatch.setattr(config.flag, "CHECK_COMPILE", 2)
    compare(plain(name, lambda: nn.Dropout(0.3), lambda: nn.BatchNorm1d(8)), steps=20, replays=15)
    fn = facula.compile(lambda x: x * 2)
    for i in range(6):
        assert fn(facula.tensor([float(i)])).item() == 2.0 * i
    entry = fn.entries[0]
    entry.fn = lambda x: x * 3
    with pytest.raises(RuntimeError, match="differs from the function"):
        for _ in range(2):
            fn(facula.tensor([1.0]))


def test_an_object_that_holds_the_compiled_function_itself():
    """What the function reaches includes itself, through an object that its closure holds."""
    class Holder:
        pass

    holder = Holder()
    holder.scale = 2.0
    holder.model = nn.Linear(4, 3)

    @facula.compile
    def call(x):
        with facula.no_grad():
            return holder.model(x) * holder.scale

    holder.one = lambda x: call(x)
    holder.made = call
    x = facula.randn(5, 4)
    for _ in range(12):
        got = holder.one(x)
    assert call.replays > 0, call.explain()
    holder.scale = 3.0
    with facula.no_grad():
        want = holder.model(x) * 3.0
    np.testing.assert_allclose(holder.one(x).numpy(), want.numpy(), rtol=1e-6)
    assert np.isfinite(got.numpy()).all()
