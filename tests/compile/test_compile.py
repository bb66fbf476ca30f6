"""A compiled function does what the function does, bit for bit, and never replays what is stale."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import facula
from facula import nn, optim
from facula.graph import flush


@pytest.fixture(autouse=True)
def _native(monkeypatch):
    """The first runs of a program are interpreted, which rounds differently: skip them."""
    monkeypatch.setattr(flush, "FIRST_RUNS", 0)


def mlp(*extra):
    facula.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), *extra, nn.Linear(8, 3))


def data(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return (facula.tensor(rng.standard_normal((n, 6)).astype(np.float32)),
            facula.tensor(rng.integers(0, 3, n)))


def everything(model, opt=None):
    out = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    out.update({f"{k}.grad": p.grad.numpy().copy() for k, p in model.named_parameters()
                if p.grad is not None})
    if opt is not None:
        for i, st in enumerate(opt.state.values()):
            for k, v in st.items():
                out[f"opt.{i}.{k}"] = np.array(v.numpy() if isinstance(v, facula.Tensor) else v)
    return out


def equal(a, b):
    assert a.keys() == b.keys()
    for k in a:
        np.testing.assert_array_equal(a[k], b[k], err_msg=k)


def compare(make, steps=50, replays=40):
    """Run a loop plainly and compiled; `make()` gives (step, model, optimizer, between)."""
    sides = []
    for compiled in (False, True):
        step, model, opt, between = make()
        fn = facula.compile(step) if compiled else step
        facula.manual_seed(11)
        losses = []
        for i in range(steps):
            args = between(i)
            out = fn(*args)
            losses.append(out.item() if isinstance(out, facula.Tensor) else out)
        sides.append((losses, everything(model, opt), facula.rand(3).tolist(), fn))
    assert sides[0][0] == sides[1][0]
    equal(sides[0][1], sides[1][1])
    assert sides[0][2] == sides[1][2], "the random stream is elsewhere"
    fn = sides[1][3]
    assert fn.replays >= replays, fn.explain()
    return fn


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
}


def plain(opt="adam", *extra, clip=None, zero_first=True, every=1):
    def make():
        model = mlp(*[e() for e in extra])
        optimizer = OPTIMIZERS[opt](model.parameters())
        criterion = nn.CrossEntropyLoss()

        def step(x, y):
            if zero_first:
                optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            return loss
        batches = [data(seed=s) for s in range(4)]
        return step, model, optimizer, lambda i: batches[i % 4]
    return make


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    compare(plain(name))


def test_dropout_and_batchnorm():
    compare(plain("adam", lambda: nn.BatchNorm1d(8), lambda: nn.Dropout(0.3)))


def test_clipping():
    compare(plain("sgd", clip=0.1))


def test_gradient_that_goes_on_growing():
    compare(plain("sgd", zero_first=False))


def test_learning_rate_schedule():
    def make():
        step, model, opt, between = plain("adam")()
        schedule = optim.lr_scheduler.ExponentialLR(opt, 0.9)

        def each(i):
            if i:
                schedule.step()
            return between(i)
        return step, model, opt, each
    compare(make)


def test_learning_rate_that_the_function_reads():
    def make():
        model = mlp()
        opt = optim.SGD(model.parameters(), lr=0.1)

        def step(x, y):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y) * opt.param_groups[0]["lr"]
            loss.backward()
            opt.step()
            return loss

        def each(i):
            opt.param_groups[0]["lr"] = 0.1 if i < 25 else 0.05
            return data()
        return step, model, opt, each
    compare(make, replays=30)


def test_schedule_inside_is_run_as_it_is():
    def make():
        model = mlp()
        opt = optim.SGD(model.parameters(), lr=0.1)
        schedule = optim.lr_scheduler.ExponentialLR(opt, 0.9)

        def step(x, y):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            schedule.step()
            return loss
        return step, model, opt, lambda i: data()
    fn = compare(make, steps=12, replays=0)
    assert fn.replays == 0
    assert "changes from" in fn.explain()


def test_batch_size_and_evaluation():
    def make():
        step, model, opt, _ = plain("momentum", lambda: nn.BatchNorm1d(8))()
        batches = [data(5), data(5, 1), data(2, 2)]

        def each(i):
            if i % 10 == 9:
                model.eval()
                with facula.no_grad():
                    model(batches[0][0]).sum().item()
                model.train()
            return batches[i % 3]
        return step, model, opt, each
    compare(make)


def test_gradient_accumulation():
    def make():
        model = mlp()
        opt = optim.Adam(model.parameters(), lr=0.01)

        def step(x, y, update):
            loss = nn.functional.cross_entropy(model(x), y) / 2
            loss.backward()
            if update:
                opt.step()
                opt.zero_grad()
            return loss
        return step, model, opt, lambda i: (*data(seed=i % 4), i % 2 == 1)
    compare(make, steps=50, replays=40)


def test_two_steps_in_one_call():
    def make():
        model = mlp(nn.Dropout(0.2))
        opt = optim.Adam(model.parameters(), lr=0.01)

        def step(x, y):
            for _ in range(2):
                opt.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                opt.step()
            return loss
        return step, model, opt, lambda i: data(seed=i % 4)
    compare(make)


def test_frozen_parameter():
    def make():
        step, model, opt, between = plain("adam")()

        def each(i):
            if i == 20:
                model[0].weight.requires_grad_(False)
                model[0].weight.grad = None
            return between(i)
        return step, model, opt, each
    compare(make)


def test_replaced_parameter_and_module():
    def make():
        model = mlp()
        opt = optim.SGD(model.parameters(), lr=0.1)

        def step(x, y):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss

        def each(i):
            if i == 15:
                model[0].weight = nn.Parameter(facula.ones(8, 6) * 0.1)
            if i == 30:
                model[1] = nn.Tanh()
            if i == 40:
                model[0].bias.data = facula.zeros(8)
            return data(seed=i % 4)
        return step, model, opt, each
    compare(make, replays=30)


def test_state_that_is_loaded():
    def make():
        step, model, opt, between = plain("adam")()
        first = {}

        def each(i):
            if i == 5:
                first.update(model={k: v.clone() for k, v in model.state_dict().items()},
                             opt={k: v for k, v in opt.state_dict().items()})
            if i == 25:
                model.load_state_dict(first["model"])
                opt.load_state_dict(first["opt"])
            return between(i)
        return step, model, opt, each
    compare(make)


def test_somebody_holds_the_old_values():
    def make():
        step, model, opt, between = plain("sgd")()
        held = []

        def each(i):
            if i % 10 == 5:
                held.append((model[0].weight.detach(), model[0].weight.grad,
                             model[2].bias.detach().clone(), model[2].bias.grad.clone()))
            if i == 49:
                step.held = [[t.tolist() for t in row] for row in held]
            return between(i)
        return step, model, opt, each
    sides = []

    def watched():
        made = make()
        sides.append(made[0])
        return made
    compare(watched, replays=25)
    assert sides[0].held == sides[1].held


def test_pending_readers_of_a_parameter():
    def make():
        step, model, opt, between = plain("sgd")()
        sums = []

        def each(i):
            sums.append(model[0].weight.sum())
            if i == 49:
                step.sums = [s.item() for s in sums]
            return between(i)
        return step, model, opt, each
    sides = []

    def watched():
        made = make()
        sides.append(made[0])
        return made
    compare(watched, replays=20)
    assert sides[0].sums == sides[1].sums


def test_parameter_shared_with_numpy():
    def make():
        step, model, opt, between = plain("sgd")()
        view = model[0].weight.detach().numpy()

        def each(i):
            if i == 20:
                view[:] = 0.25
            return between(i)
        return step, model, opt, each
    compare(make, replays=0)


# ---------------------------------------------------------------- functions without training

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
    assert "test_compile.py" in fast.explain()


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
