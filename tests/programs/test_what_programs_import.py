"""What programs for PyTorch import and decorate with before they compute anything."""

import sys

import pytest

import facula
from facula import nn


def test_modules_are_where_programs_look_for_them():
    from facula.nn.modules.activation import MultiheadAttention
    from facula.nn.modules.batchnorm import SyncBatchNorm
    from facula.nn.modules.channelshuffle import ChannelShuffle
    from facula.nn.modules.fold import Fold, Unfold
    from facula.nn.modules.instancenorm import InstanceNorm2d
    from facula.nn.modules.linear import NonDynamicallyQuantizableLinear
    from facula.nn.modules.module import _IncompatibleKeys
    from facula.nn.modules.pixelshuffle import PixelShuffle, PixelUnshuffle
    from facula.nn.modules.rnn import LSTM, RNNBase
    from facula.nn.modules.transformer import _get_activation_fn, _get_clones
    from facula.nn.modules.upsampling import Upsample
    for cls in (MultiheadAttention, SyncBatchNorm, ChannelShuffle, Fold, Unfold, InstanceNorm2d,
                PixelShuffle, PixelUnshuffle, LSTM, RNNBase, Upsample):
        assert getattr(nn, cls.__name__) is cls
    assert issubclass(NonDynamicallyQuantizableLinear, nn.Linear)
    assert isinstance(nn.Linear(1, 1).load_state_dict(nn.Linear(1, 1).state_dict()),
                      _IncompatibleKeys)
    assert _get_activation_fn("relu") is nn.functional.relu
    assert len(_get_clones(nn.Linear(2, 2), 3)) == 3


def test_tuples_of_sizes():
    from facula.nn.modules.utils import (
        _ntuple,
        _pair,
        _reverse_repeat_tuple,
        _single,
        consume_prefix_in_state_dict_if_present,
    )
    assert (_single(3), _pair(3), _pair([1, 2]), _ntuple(4)(0)) == ((3,), (3, 3), (1, 2), (0,) * 4)
    assert _reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)
    state = nn.Sequential(nn.Linear(2, 2)).state_dict()
    consume_prefix_in_state_dict_if_present(state, "0.")
    nn.Linear(2, 2).load_state_dict(state)


@pytest.mark.parametrize("name", ["cuda", "xpu", "mps", "cpu"])
def test_devices_say_what_there_is(name):
    module = facula.get_device_module(name)
    assert module.is_available() is (name == "cpu")
    assert module.device_count() == (name == "cpu")
    if name == "cpu":
        module.synchronize()
    else:
        with pytest.raises(RuntimeError, match=name):
            module.synchronize()


def test_devices_that_are_absent():
    assert facula.get_device_module() is facula.cpu
    with pytest.raises(RuntimeError, match="corresponding module"):
        facula.get_device_module("meta")
    for made in (facula.cuda.Stream, facula.cuda.Event, facula.cuda.CUDAGraph,
                 facula.cuda.get_device_capability, facula.cuda.current_stream):
        with pytest.raises(RuntimeError, match="cuda"):
            made()
    with facula.cuda.device(None), facula.cuda.stream(None):
        pass
    with pytest.raises(RuntimeError, match="cuda"):
        facula.cuda.device(0)


def test_backends_are_asked():
    from facula.backends import cuda, cudnn
    with cuda.sdp_kernel(enable_flash=True), cudnn.flags(enabled=False):
        assert cuda.math_sdp_enabled() and not cuda.flash_sdp_enabled()
    cuda.enable_flash_sdp(False)


def test_marks_leave_functions_as_they_are():
    def f(x):
        return x + 1
    for mark in (facula.jit.script, facula.jit.ignore, facula.jit.unused, facula.jit.export,
                 facula.jit.script_method, facula.jit.ignore(drop=True), facula.fx.wrap,
                 facula.jit.script_if_tracing, facula.compiler.disable,
                 facula.compiler.disable(recursive=False), facula.compiler.allow_in_graph,
                 facula.compiler.assume_constant_result, facula.compiler.set_stance("default")):
        assert mark(f) is f
    assert facula.fx.wrap("f") == "f"
    assert not facula.jit.is_scripting() and not facula.jit.is_tracing()
    with pytest.raises(RuntimeError, match="Unsupported type"):
        facula.fx.wrap(3)
    with pytest.raises(NotImplementedError, match=r"facula\.compile"):
        facula.fx.symbolic_trace(f)
    with pytest.raises(ValueError, match="force_eager"):
        facula.compiler.set_stance("force_eager")


def test_is_compiling_says_so_in_a_capture():
    seen = []

    @facula.compile
    def f(x):
        seen.append(facula.compiler.is_compiling())
        return x * 2
    f(facula.ones(3))
    assert seen[0] is True and facula.compiler.is_compiling() is False


def test_traced_function_computes_what_it_did():
    f = facula.jit.trace(lambda x, y: (x * y).sum(), (facula.ones(3), facula.ones(3)))
    x = facula.arange(3.0)
    assert f(x, x).item() == 5
    net = nn.Linear(3, 2)
    traced = facula.jit.trace(net, facula.ones(1, 3))
    assert facula.equal(traced(x), net(x))
    module = facula.jit.trace_module(nn.Linear(3, 2), {"forward": facula.ones(1, 3)})
    assert module(x).shape == (2,)
    with pytest.raises(RuntimeError, match="example"):
        facula.jit.trace(net)


@pytest.mark.parametrize("value, kind, want", [
    ([1, 2], list[int], True), ([1, "a"], list[int], False), ({"a": 1}, dict[str, int], True),
    (None, int | None, True), (3, int | None, True), ("a", int | None, False),
    ((1, "a"), tuple[int, str], True), ((1,), tuple[int, str], False), (3, (str, int), True)])
def test_isinstance_of_generic_types(value, kind, want):
    assert facula.jit.isinstance(value, kind) is want


def test_torchscript_is_refused():
    with pytest.raises(NotImplementedError, match="state_dict"):
        facula.jit.save(nn.Linear(1, 1), "x.pt")
    with pytest.raises(NotImplementedError, match="state_dict"):
        facula.jit.load("x.pt")
    assert not isinstance(nn.Linear(1, 1), facula.jit.ScriptModule)
    net = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="eval"):
        facula.jit.freeze(net)
    assert facula.jit.freeze(net.eval()) is net
    assert facula.jit.wait(facula.jit.fork(lambda a: a + 1, 2)) == 3


def test_checks_raise_what_they_say():
    facula._check(True)
    for check, error in ((facula._check, RuntimeError), (facula._check_index, IndexError),
                         (facula._check_value, ValueError), (facula._check_type, TypeError),
                         (facula._check_not_implemented, NotImplementedError)):
        with pytest.raises(error, match="no 7"):
            check(False, lambda: "no 7")
    with pytest.raises(TypeError, match="bool"):
        facula._check(1)
    with pytest.raises(RuntimeError):
        facula._check_is_size(-1)
    facula._check_tensor_all(facula.tensor([True, True]))
    with pytest.raises(RuntimeError, match="all"):
        facula._check_tensor_all(facula.tensor([True, False]), lambda: "not all")
    facula._assert(1 < 2, "")
    with pytest.raises(AssertionError, match="odd"):
        facula._assert(False, "odd")
    facula._assert_async(facula.tensor(1))
    with pytest.raises(RuntimeError, match="zero"):
        facula._assert_async(facula.tensor(0))


def test_symbolic_numbers_are_plain():
    assert isinstance(facula.ones(2).shape[0], facula.SymInt)
    assert facula.sym_max(2, 3) == 3 and facula.sym_min(2, 3) == 2 and facula.sym_int(2.7) == 2
    assert facula.sym_not(0) and facula.sym_ite(True, 1, 2) == 1 and facula.sym_sum([1, 2]) == 3
    assert facula.sym_float(2) == 2.0
    assert facula._shape_as_tensor(facula.ones(2, 3)).tolist() == [2, 3]


def test_inference_mode_knows_itself():
    assert not facula.is_inference_mode_enabled()

    @facula.inference_mode
    def bare():
        return facula.is_inference_mode_enabled(), facula.is_grad_enabled()

    @facula.inference_mode()
    def called():
        with facula.inference_mode(False):
            inner = facula.is_inference_mode_enabled(), facula.is_grad_enabled()
        return facula.is_inference_mode_enabled(), inner
    assert bare() == (True, False)
    assert called() == (True, (False, True))
    with facula.no_grad():
        assert not facula.is_inference_mode_enabled()
    assert not facula.is_inference_mode_enabled()


def test_attention_kernels_may_be_chosen():
    from facula.nn.attention import SDPBackend, sdpa_kernel
    q = facula.randn(1, 2, 3, 4)
    want = nn.functional.scaled_dot_product_attention(q, q, q)
    for given in (SDPBackend.MATH, [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        with sdpa_kernel(given):
            assert facula.equal(nn.functional.scaled_dot_product_attention(q, q, q), want)
    with pytest.raises(AssertionError, match="SDPBackend"), sdpa_kernel([]):
        pass


def test_synchronised_batch_norm_is_batch_norm():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    x = facula.randn(4, 1, 5, 5)
    want = net(x)
    net[1].reset_running_stats()
    weight = net[1].weight
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert type(net[1]) is nn.SyncBatchNorm and net[1].weight is weight
    facula.testing.assert_close(net(x), want)
    assert net[1].num_batches_tracked.item() == 1


def test_the_graph_seen_from_outside():
    from facula.autograd.graph import (
        Node,
        get_gradient_edge,
        save_on_cpu,
    )
    x = facula.ones(2, requires_grad=True)
    y = x * 2
    assert isinstance(y.grad_fn, Node) and get_gradient_edge(y).node is not None
    with save_on_cpu(pin_memory=True):
        (x.exp() * x).sum().backward()
    assert x.grad is not None
    with pytest.raises(RuntimeError, match="require gradients"):
        get_gradient_edge(facula.ones(1))


def test_types_for_annotations():
    from facula.types import Device, Number
    assert isinstance(3.5, Number) and isinstance("cpu", Device)
    assert isinstance(facula.device("cpu"), Device)


def test_marks_for_profiles():
    from facula.autograd.profiler import record_function
    with record_function("forward"):
        x = facula.ones(2)
    assert record_function("f")(lambda v: v)(x) is x


def test_nothing_of_it_is_loaded_before_it_is_named():
    import subprocess
    code = ("import sys, facula; print([m for m in ('jit', 'hub', 'library', 'multiprocessing',"
            "'types', 'fx', '_dynamo', 'xpu') if 'facula.' + m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
