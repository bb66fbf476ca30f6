"""Optimisers step by step against PyTorch's; groups, state, hooks."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import facula
from facula import optim

OPTIMISERS = [
    ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {"lr": 0.05}), ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"maximize": True, "betas": (0.8, 0.9), "eps": 1e-4}),
    ("AdamW", {"lr": 0.05}), ("AdamW", {"weight_decay": 0.3, "amsgrad": True}),
    ("Adamax", {"lr": 0.05}), ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {"lr": 0.05}), ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.05}), ("RAdam", {"weight_decay": 0.1, "betas": (0.9, 0.99)}),
    ("RMSprop", {"lr": 0.01}), ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("RMSprop", {"alpha": 0.9, "weight_decay": 0.1, "maximize": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.3}),
    ("Adadelta", {}), ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1}),
    ("Rprop", {}), ("Rprop", {"lr": 0.1, "etas": (0.4, 1.3), "step_sizes": (1e-3, 1.0)}),
    ("ASGD", {"lr": 0.1}), ("ASGD", {"lr": 0.1, "t0": 2, "weight_decay": 0.1, "alpha": 0.5}),
    ("Adafactor", {"lr": 0.1}), ("Adafactor", {"weight_decay": 0.1, "d": 1.5}),
]
IDS = [f"{name}-{'-'.join(kw) or 'plain'}" for name, kw in OPTIMISERS]

START = [np.random.default_rng(0).standard_normal(s) for s in ((3, 4), (5,), ())]


def drawn(step):
    rng = np.random.default_rng(100 + step)
    return [rng.standard_normal(p.shape) for p in START]


def run(lib, module, name, kw, steps, dtype="float64", between=None):
    """The parameters after each step, with gradients that are given."""
    params = [lib.tensor(np.array(p, dtype)).requires_grad_() for p in START]
    o = getattr(module, name)(params, **kw)
    seen = []
    for k in range(steps):
        for p, g in zip(params, drawn(k), strict=True):
            p.grad = lib.tensor(np.array(g, dtype))
        o.step()
        if between is not None:
            o = between(o, params, k)
        seen.append([p.detach().numpy().copy() for p in params])
    return seen, o


@pytest.mark.parametrize("name,kw", OPTIMISERS, ids=IDS)
@pytest.mark.parametrize("dtype,tol", [("float64", 1e-9), ("float32", 1e-4)])
def test_step_by_step(name, kw, dtype, tol):
    torch = pytest.importorskip("torch")
    if name == "ASGD":                  # PyTorch keeps its step size in float32
        tol = max(tol, 1e-7)
    want, _ = run(torch, torch.optim, name, kw, 7, dtype)
    have, _ = run(facula, optim, name, kw, 7, dtype)
    for step, (h, w) in enumerate(zip(have, want, strict=True)):
        for a, b in zip(h, w, strict=True):
            np.testing.assert_allclose(a, b, rtol=tol, atol=tol, err_msg=f"step {step}")


def test_muon_against_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    start = [rng.standard_normal(s).astype(np.float32) for s in ((4, 6), (6, 3))]
    grads = [[rng.standard_normal(s.shape).astype(np.float32) for s in start] for _ in range(4)]
    sides = []
    for lib, module in ((torch, torch.optim), (facula, optim)):
        params = [lib.tensor(s.copy()).requires_grad_() for s in start]
        o = module.Muon(params, lr=0.02)
        for step in grads:
            for p, g in zip(params, step, strict=True):
                p.grad = lib.tensor(g)
            o.step()
        sides.append([p.detach().numpy() for p in params])
    for want, have in zip(*sides, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)    # bfloat16 inside
    with pytest.raises(ValueError, match="2D"):
        optim.Muon([facula.ones(3, requires_grad=True)])


@pytest.mark.parametrize("name,kw", OPTIMISERS, ids=IDS)
def test_state_goes_on_from_where_it_was_saved(name, kw):
    """Saving, and loading into a new optimiser in the middle, changes nothing."""
    whole, _ = run(facula, optim, name, kw, 6)

    def reload(o, params, k):
        if k != 2:
            return o
        saved = copy.deepcopy(o.state_dict())
        fresh = getattr(optim, name)(params, lr=123.0)
        fresh.load_state_dict(saved)
        return fresh

    parts, _ = run(facula, optim, name, kw, 6, between=reload)
    for a, b in zip(whole, parts, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name,kw", OPTIMISERS, ids=IDS)
def test_state_dict_has_torch_keys(name, kw):
    torch = pytest.importorskip("torch")
    _, want = run(torch, torch.optim, name, kw, 2)
    _, have = run(facula, optim, name, kw, 2)
    w, h = want.state_dict(), have.state_dict()
    assert list(h) == list(w)
    assert h["state"].keys() == w["state"].keys()
    for k in w["state"]:
        assert set(h["state"][k]) == set(w["state"][k])
        for key, value in w["state"][k].items():
            if torch.is_tensor(value):
                assert tuple(h["state"][k][key].shape) == tuple(value.shape), key
                np.testing.assert_allclose(h["state"][k][key].numpy(), value.numpy(),
                                           rtol=1e-6, atol=1e-9)
    for mine, theirs in zip(h["param_groups"], w["param_groups"], strict=True):
        assert mine["params"] == theirs["params"]
        assert set(theirs) <= set(mine)


@pytest.mark.parametrize("name,kw", OPTIMISERS, ids=IDS)
def test_a_state_of_another_shape_is_refused_when_it_is_loaded(name, kw):
    """Nothing is loaded then, and the error says which parameter of which group it was."""
    def made(rows, named=True):
        params = {"bias": facula.ones(3, requires_grad=True),
                  "weight": facula.ones(rows, 3, requires_grad=True)}
        for p in params.values():
            p.grad = facula.ones(p.shape)
        return getattr(optim, name)(params.items() if named else params.values(), **kw)

    donor, fresh = made(4), made(5)
    donor.step()
    fresh.step()
    before = [dict(v) for v in fresh.state.values()]
    if not any(isinstance(v, facula.Tensor) and v.ndim == 2
               for state in donor.state.values() for v in state.values()):
        fresh.load_state_dict(donor.state_dict())                # it keeps nothing of a shape
        return
    with pytest.raises(ValueError, match=r"of 'weight' in group 0 has shape \[(4|1|2)"):
        fresh.load_state_dict(donor.state_dict())
    assert [dict(v) for v in fresh.state.values()] == before
    donor = made(4, named=False)
    donor.step()
    with pytest.raises(ValueError, match="of parameter 1 in group 0"):
        made(5, named=False).load_state_dict(donor.state_dict())


def test_parameter_groups():
    a, b = (facula.ones(2, requires_grad=True) for _ in range(2))
    o = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)
    for p in (a, b):
        p.grad = facula.ones(2)
    o.step()
    np.testing.assert_allclose(a.detach().numpy(), 0.9)
    np.testing.assert_allclose(b.detach().numpy(), 0.5)
    c = facula.ones(1, requires_grad=True)
    o.add_param_group({"params": c, "lr": 0.25})
    assert [g["lr"] for g in o.param_groups] == [0.1, 0.5, 0.25]
    with pytest.raises(ValueError, match="more than one parameter group"):
        o.add_param_group({"params": [a]})
    with pytest.raises(ValueError, match="different number of parameter groups"):
        o.load_state_dict(optim.SGD([a]).state_dict())
    assert repr(o).startswith("SGD (\nParameter Group 0\n    dampening: 0\n")


def test_wrong_arguments():
    p = facula.ones(2, requires_grad=True)
    for call, match in (
            (lambda: optim.SGD([], lr=1), "empty parameter list"),
            (lambda: optim.SGD([p], lr=-1), "Invalid learning rate: -1"),
            (lambda: optim.SGD([p], lr=1, nesterov=True), "Nesterov momentum requires"),
            (lambda: optim.Adam([p], betas=(1.0, 0.9)), "Invalid beta parameter at index 0"),
            (lambda: optim.RMSprop([p], alpha=-1), "Invalid alpha value"),
            (lambda: optim.SGD([p * 2]), "can't optimize a non-leaf Tensor")):
        with pytest.raises(ValueError, match=match):
            call()
    optimizer = optim.SGD([facula.ones(2, requires_grad=True)], lr=0.1)
    with pytest.raises(KeyError, match="'state' and 'param_groups'"):
        optimizer.load_state_dict({"weight": facula.ones(2)})
    with pytest.raises(TypeError, match="dict-like"):
        optimizer.load_state_dict([])
    with pytest.raises(TypeError, match=r"the module Linear: give its \.parameters\(\)"):
        optim.SGD(facula.nn.Linear(2, 2), lr=0.1)
    with pytest.raises(TypeError, match=r"not the string '0\.1'"):
        optim.SGD([facula.ones(2, requires_grad=True)], lr="0.1")
    with pytest.raises(TypeError, match="should be an iterable"):
        optim.SGD(p)


def test_gradients_set_to_none_or_zero_and_skipped():
    a, b = (facula.ones(2, requires_grad=True) for _ in range(2))
    o = optim.Adam([a, b])
    a.grad = facula.ones(2)
    o.step()
    assert b.tolist() == [1, 1] and b not in o.state
    o.zero_grad(set_to_none=False)
    assert a.grad.tolist() == [0, 0]
    o.zero_grad()
    assert a.grad is None


def test_closure_hooks_and_changing_rates():
    p = facula.tensor([2.0], requires_grad=True)
    o = optim.SGD([p], lr=0.5)
    calls = []
    first = o.register_step_pre_hook(lambda *_: calls.append("pre"))
    o.register_step_post_hook(lambda *_: calls.append("post"))

    def closure():
        o.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        calls.append("closure")
        return loss

    assert o.step(closure).item() == 4.0
    assert p.item() == 0.0 and calls == ["pre", "closure", "post"]
    first.remove()
    p.grad = facula.tensor([1.0])
    for lr in (0.1, 0.2, 0.4):
        o.param_groups[0]["lr"] = lr
        o.step()
    assert p.item() == pytest.approx(-0.7)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs(search):
    torch = pytest.importorskip("torch")
    sides = []
    for lib, module in ((torch, torch.optim), (facula, optim)):
        x = lib.tensor(np.array([-1.2, 1.0])).requires_grad_()
        o = module.LBFGS([x], lr=1.0 if search else 1e-3, max_iter=8, line_search_fn=search)
        path = []

        def closure():
            o.zero_grad()
            loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
            loss.backward()
            return loss

        for _ in range(4):
            o.step(closure)
            path.append(x.detach().numpy().copy())
        sides.append(path)
    np.testing.assert_allclose(sides[1], sides[0], rtol=1e-6, atol=1e-8)


def line_fit(lib):
    rng = np.random.default_rng(0)
    w, b = (lib.tensor(rng.standard_normal(s)).requires_grad_() for s in ((5, 4), (5,)))
    x, y = (lib.tensor(rng.standard_normal(s)) for s in ((12, 4), (12, 5)))

    def loss():
        return ((x @ w.t() + b - y) ** 2).mean() + (w ** 4).sum() * 0.01

    return [w, b], loss


@pytest.mark.parametrize("options", [{}, {"max_eval": 6}, {"history_size": 2},
                                     {"tolerance_change": 1e-3}])
def test_lbfgs_evaluates_where_torch_does(options):
    torch = pytest.importorskip("torch")
    sides = []
    for lib, module in ((torch, torch.optim), (facula, optim)):
        params, loss = line_fit(lib)
        o = module.LBFGS(params, line_search_fn="strong_wolfe", **options)
        seen = []

        def closure():
            o.zero_grad()
            value = loss()
            value.backward()
            seen.append(float(value.detach()))
            return value

        for _ in range(3):
            o.step(closure)
        sides.append((seen, [p.detach().numpy() for p in params], o.state_dict()))
    np.testing.assert_allclose(sides[1][0], sides[0][0], rtol=1e-9)
    for have, want in zip(sides[1][1], sides[0][1], strict=True):
        np.testing.assert_allclose(have, want, atol=1e-6)
    assert sides[1][2]["state"][0].keys() == sides[0][2]["state"][0].keys()
    assert len(sides[1][2]["state"][0]["al"]) == len(sides[0][2]["state"][0]["al"])


@pytest.mark.parametrize("kw", [{}, {"lr": 0.1, "betas": (0.5, 0.6), "maximize": True}])
def test_sparse_adam_leaves_unused_rows_alone(kw):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    table = rng.standard_normal((6, 3))
    rows = [[0, 2, 2], [4, 0, 5], [2, 2, 1], [5, 5, 5]]
    sides = []
    for lib in (torch, facula):
        layer = lib.nn.Embedding(6, 3, sparse=True, dtype=lib.float64)
        layer.weight.data = lib.tensor(table.copy())
        o = lib.optim.SparseAdam(layer.parameters(), **kw)
        seen = []
        for index in rows:
            o.zero_grad()
            (layer(lib.tensor(index)) ** 2).sum().backward()
            o.step()
            seen.append(layer.weight.detach().numpy().copy())
        sides.append((seen, o.state_dict()))
    for have, want in zip(sides[1][0], sides[0][0], strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-9)
    np.testing.assert_array_equal(sides[1][0][-1][3], table[3])         # never used
    have, want = sides[1][1], sides[0][1]
    assert have["param_groups"] == want["param_groups"]
    assert have["state"][0]["step"] == want["state"][0]["step"] == 4
    for key in ("exp_avg", "exp_avg_sq"):
        np.testing.assert_allclose(have["state"][0][key].numpy(), want["state"][0][key].numpy(),
                                   rtol=1e-9)


def test_sparse_adam_takes_any_shape_and_refuses_complex():
    for shape, gradient in (((), 2.0), ((3,), [0.0, 1.0, float("nan")]), ((0, 2), None)):
        p = facula.ones(shape, requires_grad=True)
        p.grad = facula.zeros(shape) if gradient is None else facula.tensor(gradient)
        optim.SparseAdam([p], lr=0.5).step()
        moved = p.detach().numpy() != 1
        np.testing.assert_array_equal(moved, p.grad.numpy() != 0)
    with pytest.raises(ValueError, match="complex"):
        optim.SparseAdam([facula.ones(2, dtype=facula.complex64, requires_grad=True)])
    with pytest.raises(ValueError, match="learning rate"):
        optim.SparseAdam([facula.ones(2, requires_grad=True)], lr=0.0)


def test_training_converges_without_torch():
    """Every optimiser goes downhill on a small least-squares problem."""
    rng = np.random.default_rng(0)
    a, b = facula.tensor(rng.standard_normal((8, 3))), facula.tensor(rng.standard_normal(8))
    for name in ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad",
                 "Adadelta", "Rprop", "ASGD", "Adafactor"):
        w = facula.zeros(3, dtype=facula.float64, requires_grad=True)
        o = getattr(optim, name)([w], lr=1.0 if name == "Adadelta" else 0.02)
        losses = []
        for _ in range(20):
            o.zero_grad()
            loss = ((a @ w - b) ** 2).mean()
            loss.backward()
            o.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0], name
