"""What libraries for PyTorch (torchmetrics, accelerate, peft) reach for beside its public names."""

from __future__ import annotations

import importlib

import pytest

import facula
from facula.profiler import ProfilerActivity, profile, supported_activities


def test_usage_is_not_logged():
    assert facula._C._log_api_usage_once("library.part") is None


@pytest.mark.parametrize("args, kwargs, expected", [
    (("cpu",), {}, ("cpu", None, False)),
    ((facula.float16, True), {}, (None, facula.float16, True)),
    (("cpu", facula.float64), {"non_blocking": True}, ("cpu", facula.float64, True)),
    ((), {"dtype": facula.bfloat16}, (None, facula.bfloat16, False)),
])
def test_arguments_of_to_are_told_apart(args, kwargs, expected):
    device, dtype, non_blocking, memory_format = facula._C._nn._parse_to(*args, **kwargs)
    assert (device if device is None else device.type, dtype, non_blocking) == expected
    assert memory_format is None


def test_arguments_of_to_that_nothing_takes_are_refused():
    with pytest.raises(TypeError, match="nowhere"):
        facula._C._nn._parse_to(nowhere=1)


def test_the_kind_of_storages_has_a_name():
    x = facula.ones(2, 3)
    storage = x.untyped_storage()
    assert isinstance(storage, facula.UntypedStorage)
    assert storage == x[1].untyped_storage() and storage != facula.ones(2, 3).untyped_storage()
    assert len(storage) == 24 and storage.device.type == "cpu" and not storage.is_cuda
    with pytest.raises(TypeError, match="uint8"):
        facula.UntypedStorage(10)


def test_a_profile_is_of_the_cpu():
    assert supported_activities() == {ProfilerActivity.CPU}
    with profile(activities=[ProfilerActivity.CPU]) as found:
        (facula.ones(3) + 1).tolist()
    assert found.ended >= found.started
    with pytest.raises(ValueError, match="on the CPU"):
        profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])


@pytest.mark.parametrize("module, name", [("data_parallel", "DataParallel"),
                                          ("distributed", "DistributedDataParallel")])
def test_wrappers_have_modules_of_their_own(module, name):
    found = importlib.import_module(f"facula.nn.parallel.{module}")
    assert getattr(found, name) is getattr(facula.nn.parallel, name)


def test_fans_by_mode_in_any_case():
    weight = facula.ones(4, 3, 2)
    fan = facula.nn.init._calculate_correct_fan
    assert (fan(weight, "fan_in"), fan(weight, "FAN_OUT")) == (6, 8)
    with pytest.raises(ValueError, match="not supported"):
        fan(weight, "fan_both")
