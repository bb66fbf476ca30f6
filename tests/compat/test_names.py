"""What programs written for PyTorch import and ask at their start."""

from __future__ import annotations

import importlib

import pytest

import facula
from facula import nn


@pytest.mark.parametrize("module, names", [
    ("utils.data.dataset", ["Dataset", "random_split"]),
    ("utils.data.dataloader", ["DataLoader", "default_collate", "get_worker_info"]),
    ("utils.data.sampler", ["Sampler", "SubsetRandomSampler"]),
    ("nn.parallel", ["DataParallel", "DistributedDataParallel"]),
    ("distributed", ["init_process_group", "destroy_process_group"]),
    ("cuda.amp", ["autocast", "GradScaler"]),
    ("backends.cudnn", ["enabled", "benchmark", "deterministic"]),
    ("backends.mps", ["is_available", "is_built"]),
    ("backends.cuda", ["matmul"]),
    ("vision.utils", ["make_grid", "save_image"]),
])
def test_modules_have_their_names(module, names):
    found = importlib.import_module(f"facula.{module}")
    for name in names:
        assert getattr(found, name) is not None


def test_a_program_that_looks_for_a_device_settles_for_the_cpu():
    assert not facula.accelerator.is_available() and not facula.cuda.is_available()
    assert facula.accelerator.current_accelerator() is None
    assert facula.accelerator.device_count() == facula.cuda.device_count() == 0
    assert facula.cuda.memory_allocated() == facula.cuda.max_memory_allocated() == 0
    assert not facula.cuda.is_bf16_supported()
    assert not facula.backends.mps.is_available() and facula.backends.cudnn.version() is None
    facula.backends.cudnn.benchmark = facula.backends.cuda.matmul.allow_tf32 = True
    assert not facula.distributed.is_available() and not facula.distributed.is_initialized()


@pytest.mark.parametrize("call", [
    lambda: facula.accelerator.synchronize(), lambda: facula.accelerator.set_device_index(0),
    lambda: facula.cuda.set_device(0), lambda: facula.cuda.get_device_properties(0),
])
def test_using_it_all_the_same_says_why_not(call):
    with pytest.raises(RuntimeError, match="on the CPU"):
        call()


def test_process_groups_are_refused():
    with pytest.raises(RuntimeError, match="one process"):
        facula.distributed.init_process_group("gloo")
    with pytest.raises(RuntimeError, match="one process"):
        nn.parallel.DistributedDataParallel(nn.Linear(2, 2))


def test_data_parallel_is_the_module():
    net = nn.Linear(3, 2)
    wrapped = nn.DataParallel(net)
    x = facula.rand(4, 3)
    assert facula.equal(wrapped(x), net(x))
    assert list(wrapped.state_dict()) == ["module.weight", "module.bias"]
    with pytest.raises(RuntimeError, match="device_ids"):
        nn.DataParallel(net, device_ids=[0])


def test_mixed_precision_for_a_gpu_warns_and_does_nothing():
    with pytest.warns(UserWarning, match="not available"):
        context = facula.cuda.amp.autocast()
    with context:
        assert (facula.rand(2, 3) @ facula.rand(3, 2)).dtype is facula.float32
    with pytest.warns(UserWarning, match="not available"):
        scaler = facula.cuda.amp.GradScaler()
    loss = facula.ones(1)
    assert scaler.scale(loss) is loss
