"""Plans on disk: found again, and never the wrong one."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import facula
from facula import config, nn, optim
from facula.graph.flush import flush
from facula.graph.record import State, recorder
from facula.runtime import cache
from facula.schedule import executable, resized, stored
from facula.schedule.compile import build


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """An empty cache, and a count of what is planned."""
    planned = []
    forget()                    # what other tests have left is planned before anything is counted

    def counting(*args):
        planned.append(args)
        return build(*args)
    monkeypatch.setattr(executable, "build", counting)
    monkeypatch.setattr(stored, "FEWEST_STEPS", 0)
    with config.override(CACHE_DIR=str(tmp_path), INTERPRET=False, CACHE=True):
        yield planned


def forget():
    """As in a new process: no structure is known."""
    rec = recorder()
    flush(rec)
    rec.root, rec.states = State(None, ()), 0
    rec.fresh_graph()
    resized._families.clear()
    gc.collect()                # programs that are garbage hold plans until they are gone


def train(steps=3, wide=24):
    facula.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, wide), nn.Tanh(), nn.Linear(wide, 4))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    x, y = facula.rand(8, 12), facula.randint(0, 4, (8,))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return np.concatenate([w.detach().numpy().copy().ravel() for w in model.parameters()])


def test_a_plan_is_found_by_its_steps(disk):
    forget()
    first = train()
    count = len(disk)
    assert count
    forget()
    assert np.array_equal(train(), first)
    assert len(disk) == count
    forget()
    train(wide=25)
    assert len(disk) > count


def test_what_is_loaded_is_what_was_planned(disk):
    forget()
    train()
    for steps, outputs, donations, lasting in disk:
        assert not lasting
        plan = build(steps, outputs, donations)
        key = stored.key_of(steps, outputs, donations)
        native, kernels = stored.load(key)
        assert native.plan == plan.plan.without_text()
        assert (native.inputs, native.outputs, native.reports, native.sizes, native.stored) == (
            plan.inputs, plan.outputs, plan.reports, plan.sizes, plan.stored)
        assert [k.name for k in kernels] == [k.name for p in plan.plan.phases for k in p.kernels]


def test_keys_tell_apart_what_plans_depend_on(disk, monkeypatch):
    forget()
    (facula.rand(6) * 2 + 1)._peek()
    steps, outputs, donations, _ = disk[-1]
    key = stored.key_of(steps, outputs, donations)
    assert key == stored.key_of(list(steps), tuple(outputs), dict(donations))
    assert key != stored.key_of(steps, outputs, {outputs[0]: 0})
    assert key != stored.key_of(steps, [*outputs, 0], donations)
    monkeypatch.setattr(stored, "_compiler", lambda: "another source")
    assert key != stored.key_of(steps, outputs, donations)
    monkeypatch.setattr(stored, "_compiler", lambda: None)
    assert stored.key_of(steps, outputs, donations) is None


def test_attributes_that_look_alike():
    keys = [repr(stored._plain(v)) for v in (
        (1,), (1.0,), (True,), ("1",), (0.0,), (-0.0,), (float("nan"),), (1j,), (facula.float32,),
        ("float32",), (None,), ((1,),), (b"1",), (float("inf"),))]
    assert len(set(keys)) == len(keys)
    with pytest.raises(TypeError, match="object among the attributes"):
        stored._plain((object(),))


@pytest.mark.parametrize("damage", ["truncated", "empty", "other"])
def test_a_damaged_plan_is_made_anew(disk, damage):
    forget()
    first = train()
    count = len(disk)
    for steps, outputs, donations, _ in list(disk):
        key = stored.key_of(steps, outputs, donations)
        payload = cache.load(key)
        cache.store(key, {"truncated": payload[:len(payload) // 2], "empty": b"\x00",
                          "other": b"i\x07\x00\x00\x00"}[damage])
    forget()
    assert np.array_equal(train(), first)
    assert len(disk) == 2 * count


def test_a_plan_whose_kernels_are_gone_is_made_anew(disk, monkeypatch):
    forget()
    first = train()
    count = len(disk)
    monkeypatch.setattr(stored, "load_kernels", lambda items: None)
    forget()
    assert np.array_equal(train(), first)
    assert len(disk) >= 2 * count


def test_without_a_cache_nothing_is_kept(disk):
    with config.override(CACHE=False):
        forget()
        train()
        count = len(disk)
        forget()
        train()
        assert len(disk) >= 2 * count
