"""What libraries for PyTorch (torchmetrics, accelerate, peft, lightning) reach for."""

from __future__ import annotations

import importlib

import pytest

import facula
from facula.profiler import ProfilerActivity, profile, supported_activities
from facula.utils.flop_counter import FlopCounterMode


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


def test_what_is_not_there_may_be_named_and_derived_from_but_not_used():
    class Mode(facula.overrides.TorchFunctionMode):
        pass

    counter = FlopCounterMode(display=False)
    for context in (Mode(), counter):
        with pytest.raises(NotImplementedError), context:
            pass
    assert counter.get_total_flops() == 0 and counter.get_flop_counts() == {}
    events = facula.autograd.profiler
    for make in (events.profile, events.emit_nvtx, events.EventList, facula.fx.GraphModule,
                 facula.PyTorchFileReader):
        with pytest.raises(NotImplementedError):
            make()
    with pytest.raises(NotImplementedError, match="handlers"):
        facula.profiler.tensorboard_trace_handler("folder")
    assert not facula.profiler.kineto_available()


def test_there_are_no_generators_of_gpus():
    assert facula.cuda.get_rng_state_all() == []
    facula.cuda.set_rng_state_all([])
    with pytest.raises(RuntimeError, match="1 GPUs"):
        facula.cuda.set_rng_state_all([facula.get_rng_state()])


def test_classes_that_libraries_ask_for_are_those_of_the_objects():
    from facula.utils.data import dataloader
    compiled = facula.compile(facula.nn.Linear(2, 2))
    assert isinstance(compiled, facula._dynamo.OptimizedModule)
    assert facula.ScriptModule is facula.jit.ScriptModule
    loader = dataloader.DataLoader([1, 2, 3])
    epoch = iter(loader)
    assert isinstance(epoch, dataloader._BaseDataLoaderIter)
    assert not isinstance(epoch, dataloader._MultiProcessingDataLoaderIter)


def test_the_kinds_of_nodes_of_trees():
    from collections import namedtuple

    from facula.utils import _pytree as trees
    Pair = namedtuple("Pair", "a b")
    for value in ([1, 2], (1, 2), {"a": 1, "b": 2}, Pair(1, 2)):
        kind = trees._get_node_type(value)
        parts, context = trees.SUPPORTED_NODES[kind].flatten_fn(value)
        spec = trees.TreeSpec(kind, context, [trees.LeafSpec()] * 2)
        assert list(parts) == [1, 2] and trees.tree_unflatten(parts, spec) == value
    assert trees._get_node_type(3) is int and int not in trees.SUPPORTED_NODES
