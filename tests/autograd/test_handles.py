"""The handles that hooks are taken out by."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest

import facula
from facula.utils.hooks import RemovableHandle


def test_all_hooks_give_the_same_kind_of_handle():
    leaf = facula.ones(2, requires_grad=True)
    layer = facula.nn.Linear(2, 2)
    optimizer = facula.optim.SGD(layer.parameters(), lr=0.1)
    for handle in (leaf.register_hook(lambda g: None),
                   (leaf * 2).register_hook(lambda g: None),
                   leaf.register_post_accumulate_grad_hook(lambda t: None),
                   layer.register_forward_hook(lambda m, a, o: None),
                   optimizer.register_step_pre_hook(lambda o, a, k: None)):
        assert isinstance(handle, RemovableHandle)


@pytest.mark.parametrize("computed", [False, True])
def test_a_hook_registered_twice_is_taken_out_once(computed):
    x = facula.ones(3, requires_grad=True)
    y = x * 1 if computed else x
    calls = []
    hook = calls.append
    first = y.register_hook(hook)
    second = y.register_hook(hook)
    assert first.id != second.id
    second.remove()
    second.remove()
    y.sum().backward()
    assert len(calls) == 1


def test_computed_tensors_call_hooks_in_order_and_take_what_they_return():
    x = facula.ones(3, requires_grad=True)
    y = x * 3
    y.register_hook(lambda g: g + 1)
    with y.register_hook(lambda g: g * 100):
        pass
    y.register_hook(lambda g: g * 2)
    y.sum().backward()
    assert x.grad.tolist() == [12.0, 12.0, 12.0]


def test_a_handle_outlives_its_tensor_and_keeps_nothing_alive():
    class Held:
        def __call__(self, gradient):
            return None

    hook = Held()
    x = facula.ones(3, requires_grad=True)
    handle = x.register_hook(hook)
    seen = weakref.ref(hook)
    del x, hook
    gc.collect()
    assert seen() is None
    handle.remove()
    pickle.loads(pickle.dumps(handle)).remove()
