"""A compiled function does what the function does, bit for bit, and never replays what is stale."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn, optim
from facula.graph import flush
from facula.graph.record import recorder


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
        flush.flush(recorder())         # else the plain first step is one program with this
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
    "radam": lambda p: optim.RAdam(p, lr=0.01),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5),
    "rprop": lambda p: optim.Rprop(p, lr=0.01),
    "asgd": lambda p: optim.ASGD(p, lr=0.01),
    "adafactor": lambda p: optim.Adafactor(p, lr=0.01, weight_decay=0.1),
    "muon": lambda p: optim.Muon([t for t in p if t.ndim == 2], lr=0.01),
    "sparse-adam": lambda p: optim.SparseAdam(p, lr=0.01),
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
