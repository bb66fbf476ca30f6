"""Pickled tensors, modules and optimisers: what other processes and caches of results are sent."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import facula
from facula import multiprocessing, nn

DTYPES = [facula.bool, facula.uint8, facula.int64, facula.float16, facula.bfloat16,
          facula.float32, facula.float64, facula.complex64, facula.float8_e4m3fn]


def again(value, protocol=pickle.DEFAULT_PROTOCOL):
    return pickle.loads(pickle.dumps(value, protocol))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_values(dtype, protocol):
    for array in ([[0, 1, 2], [3, 0, 1]], [], 1, [[[]]]):
        t = facula.tensor(array).to(dtype)
        twin = again(t, protocol)
        assert type(twin) is facula.Tensor and twin.dtype is dtype and twin.shape == t.shape
        assert twin.contiguous().view(-1).tolist() == t.view(-1).tolist()


def test_odd_values():
    t = facula.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    assert again(t).numpy().tobytes() == t.numpy().tobytes()


def test_views_have_memory_of_their_own():
    t = facula.arange(12.0).reshape(3, 4)
    for view in (t.T, t[::2, 1], t[:, None].expand(3, 2, 4), t.flip(0)):
        twin = again(view)
        np.testing.assert_array_equal(twin.numpy(), view.numpy())
    part, whole = again((t[0], t))
    part.zero_()
    assert whole[0].tolist() == [0, 1, 2, 3] and t[0, 1].item() == 1
    one, other = again((t, t))
    assert one is other


def test_written_tensors_and_pending_ones():
    t = facula.zeros(3)
    t[1] = 5
    assert again(t).tolist() == [0, 5, 0]
    assert again(t * 2 + 1).tolist() == [1, 11, 1]


def test_gradients():
    leaf = facula.ones(2).requires_grad_()
    (leaf * 3).sum().backward()
    twin = again(leaf)
    assert twin.requires_grad and twin.is_leaf and twin.grad is None
    (twin * 2).sum().backward()
    assert twin.grad.tolist() == [2, 2] and leaf.grad.tolist() == [3, 3]
    computed = again(leaf * 2)
    assert computed.is_leaf and computed.requires_grad




def test_classes_and_attributes():
    t = facula.ones(2)
    t.tag = "t"
    assert again(t).tag == "t"
    p = again(nn.Parameter(facula.ones(2), requires_grad=False))
    assert type(p) is nn.Parameter and not p.requires_grad
    b = again(nn.Buffer(facula.ones(2), persistent=False))
    assert type(b) is nn.Buffer and b.persistent is False
    u = again(nn.UninitializedParameter(dtype=facula.float64))
    assert type(u) is nn.UninitializedParameter and u.dtype is facula.float64 and u.requires_grad


def test_named_results():
    x = facula.tensor([[1.0, 3.0], [4.0, 2.0]])
    for found in (x.max(1), x.sort(), x.topk(1), x.median(0), facula.linalg.qr(x),
                  facula.linalg.slogdet(x), x.frexp(), x.cummax(0)):
        twin = again(found)
        assert type(twin) is type(found)
        assert type(found) is getattr(facula.return_types, type(found).__name__)
        for a, b in zip(twin, found):
            assert (a == b).all()
    assert isinstance(x.max(0), facula.return_types.max)


def _model():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_modules():
    model = _model()
    x = facula.randn(5, 3)
    model(x).sum().backward()
    twin = again(model)
    assert str(twin) == str(model)
    for (name, a), (other, b) in zip(model.state_dict().items(), twin.state_dict().items()):
        assert name == other and (a == b).all() and a is not b
    assert twin[0].weight is twin[0]._parameters["weight"]
    assert (twin.eval()(x) == model.eval()(x)).all()
    before = twin[0].weight.clone()
    with facula.no_grad():
        model[0].weight.zero_()
    assert (twin[0].weight == before).all()
    lazy = again(nn.LazyLinear(3))
    assert lazy(x).shape == (5, 3) and type(lazy) is nn.Linear
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    twin = again(tied)
    assert twin[1].weight is twin[0].weight


CALLS = []


def _count(module, args, out):
    CALLS.append(1)


def test_hooks_travel():
    model = nn.Linear(2, 2)
    handle = model.register_forward_hook(_count)
    twin, other = again((model, handle))
    later = twin.register_forward_hook(_count)
    CALLS.clear()
    twin(facula.ones(1, 2))
    assert len(CALLS) == 2
    other.remove()
    later.remove()
    twin(facula.ones(1, 2))
    assert len(CALLS) == 2
    model(facula.ones(1, 2))
    assert len(CALLS) == 3


def test_compiled_modules():
    model = nn.Linear(2, 2)
    x = facula.ones(1, 2)
    expected = model(x)
    model.compile()
    assert (model(x) == expected).all()
    assert (again(model)(x) == expected).all()


def test_training_goes_on():
    facula.manual_seed(0)
    model = _model()
    optimizer = facula.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = facula.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    x, y = facula.randn(8, 3), facula.randint(2, (8,))

    def step(model, optimizer, scheduler):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss.item()

    for _ in range(3):
        step(model, optimizer, scheduler)
    twins = again((model, optimizer, scheduler))
    assert twins[2].optimizer is twins[1]
    assert twins[1].param_groups[0]["params"][0] is twins[0][0].weight
    for _ in range(3):
        assert step(model, optimizer, scheduler) == pytest.approx(step(*twins), rel=1e-5)


def _double(queue, back):
    back.put(queue.get() * 2)


def test_queues():
    context = multiprocessing.get_context("spawn")
    there, back = context.Queue(), context.Queue()
    process = context.Process(target=_double, args=(there, back))
    process.start()
    there.put(facula.arange(4))
    assert back.get(timeout=100).tolist() == [0, 2, 4, 6]
    process.join()


def test_another_process_reads_it(tmp_path):
    path = tmp_path / "model.pickle"
    model = nn.Linear(2, 1)
    path.write_bytes(pickle.dumps({"model": model, "x": facula.ones(3, 2)}))
    code = (f"import pickle; d = pickle.load(open({str(path)!r}, 'rb')); "
            "print(float(d['model'](d['x']).sum()))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(float(model(facula.ones(3, 2)).sum()))
