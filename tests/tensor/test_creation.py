"""Tensors from data, constants and patterns, held to PyTorch's values, dtypes and errors."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

import facula

torch = pytest.importorskip("torch")


def _same(ours, theirs, exact=True):
    assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
    assert tuple(ours.shape) == tuple(theirs.shape)
    a, b = ours.detach().numpy(), theirs.detach().numpy()
    if exact:
        np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def _both(call):
    """The result of `call` in both libraries, or that both raise the same type."""
    try:
        theirs = call(torch)
    except Exception as error:
        with pytest.raises(type(error)):
            call(facula)
        return None
    return call(facula), theirs


DATA = [
    1, 2.5, True, 1j, [], [[]], [[], []], [1, 2], [1, 2.0], [True, 2], [True, False], [1, 2.5, 1j],
    [[1, 2], [3, 4]], ((1, 2), (3.0, 4)), [[[1]]], range(3), np.float64(2), [np.float32(1)],
    [np.int32(3)], np.int16(3), np.arange(6).reshape(2, 3).T, np.arange(5.)[::2],
    np.zeros((0, 3), np.float32), [np.array([1, 2]), np.array([3, 4])], [2 ** 40],
    [float("nan"), float("inf")], [[1, 2], [3]], [1, [2]], "a", ["a"], [None], None, {1: 2},
    [2 ** 63], [2 ** 70], [[1, 2], 3], np.array(["x"]), [1e300], [np.float64(1), 2]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("k", range(len(DATA)))
def test_tensor_infers_as_pytorch(k):
    got = _both(lambda m: m.tensor(DATA[k]))
    if got:
        _same(*got)


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
          "complex64", "complex128", "uint16", "uint32", "uint64"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("data", [[1.5, -2.5], [300, -1], [1, 0], [1e6], [True], [1 + 2j], 7,
                                  [float("nan")], [[0.1, 2], [3, 4]]], ids=str)
def test_tensor_with_dtype(dtype, data):
    if dtype == "uint64" and ("." in repr(data) or "nan" in repr(data)):
        pytest.skip("PyTorch makes no uint64 tensor from a list of floats")
    got = _both(lambda m: m.tensor(data, dtype=getattr(m, dtype)))
    if got:
        _same(*got)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0, 1, 3, 2.5, True, 1j, 300, -1], ids=str)
def test_full(dtype, value):
    got = _both(lambda m: m.full((2, 3), value, dtype=getattr(m, dtype)))
    if got:
        _same(*got)


@pytest.mark.parametrize("call", [
    lambda m: m.zeros(2, 3), lambda m: m.zeros((2, 3)), lambda m: m.zeros([2, 3]),
    lambda m: m.zeros(()), lambda m: m.zeros(0), lambda m: m.zeros(size=(2,)),
    lambda m: m.ones(2, dtype=m.int64), lambda m: m.ones(m.Size([2, 1])),
    lambda m: m.zeros(-1), lambda m: m.zeros(2.5), lambda m: m.zeros(),
    lambda m: m.full((2,), 3), lambda m: m.full((2,), True), lambda m: m.full((2,), 1.5),
    lambda m: m.full((2,), 1j), lambda m: m.full((), 2),
    lambda m: m.zeros_like(m.ones(2, 3, dtype=m.int32)),
    lambda m: m.ones_like(m.zeros(2), dtype=m.float64),
    lambda m: m.full_like(m.zeros(2, dtype=m.int64), 7),
    lambda m: m.zeros(3).new_zeros(2), lambda m: m.zeros(3).double().new_ones((2, 2)),
    lambda m: m.zeros(3).new_full((2,), 3), lambda m: m.zeros(3).new_tensor([1, 2]),
    lambda m: m.arange(5), lambda m: m.arange(1, 4), lambda m: m.arange(1, 2.5, 0.5),
    lambda m: m.arange(5, 0, -2), lambda m: m.arange(0), lambda m: m.arange(0, 1, 0),
    lambda m: m.arange(3, 1), lambda m: m.arange(5, dtype=m.float32), lambda m: m.arange(2.0),
    lambda m: m.arange(1, 10, 3, dtype=m.uint8), lambda m: m.arange(start=1, end=5),
    lambda m: m.arange(0, 1, 0.1), lambda m: m.arange(float("inf")), lambda m: m.arange(end=4),
    lambda m: m.linspace(0, 1, 7), lambda m: m.linspace(0, 1, 1), lambda m: m.linspace(0, 1, 0),
    lambda m: m.linspace(-3, 5, 10, dtype=m.float64), lambda m: m.linspace(0, 1, -1),
    lambda m: m.linspace(0, 10, 5, dtype=m.int64), lambda m: m.eye(3), lambda m: m.eye(2, 4),
    lambda m: m.eye(3, dtype=m.int64), lambda m: m.eye(-1), lambda m: m.eye(0),
    lambda m: m.tril_indices(3, 4, 1), lambda m: m.triu_indices(4, 3, -1),
    lambda m: m.tril_indices(0, 3), lambda m: m.scalar_tensor(3),
    lambda m: m.as_tensor([1, 2.5]), lambda m: m.asarray([1, 2]),
    lambda m: m.frombuffer(bytearray(b"\x01\x00\x02\x00"), dtype=m.int16),
    lambda m: m.vander(m.tensor([1.0, 2, 3])), lambda m: m.vander(m.tensor([1, 2, 3]), 2, True),
    lambda m: m.FloatTensor([1, 2]), lambda m: m.LongTensor([[1, 2]]),
    lambda m: m.tensor([1.0], requires_grad=True), lambda m: m.tensor([1], requires_grad=True),
    lambda m: m.complex(m.ones(2), m.zeros(2)), lambda m: m.zeros(2, out=m.empty(2)),
    lambda m: m.zeros(2, 3, dtype=float), lambda m: m.empty_strided((2, 3), (1, 2)).fill_(1),
    lambda m: m.range(1, 4)])
@pytest.mark.filterwarnings("ignore")
def test_as_pytorch(call):
    got = _both(call)
    if got:
        _same(*got)


@pytest.mark.parametrize("call", [
    lambda m: m.arange(-3, 3, 0.7, dtype=m.float64), lambda m: m.logspace(0, 2, 5),
    lambda m: m.logspace(-1, 1, 4, base=2),
    lambda m: m.hann_window(9), lambda m: m.hann_window(9, periodic=False),
    lambda m: m.hamming_window(8), lambda m: m.blackman_window(7), lambda m: m.bartlett_window(6),
    lambda m: m.kaiser_window(10), lambda m: m.kaiser_window(5, False, 4.0),
    lambda m: m.hann_window(1), lambda m: m.hann_window(0), lambda m: m.hann_window(-1),
    lambda m: m.hann_window(3, dtype=m.int64), lambda m: m.polar(m.ones(2), m.tensor([0.5, 2.0]))])
def test_close_to_pytorch(call):
    got = _both(call)
    if got:
        _same(*got, exact=False)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "complex64"])
def test_column_major(dtype):
    data = np.arange(6).reshape(2, 3)
    t = facula.tensor(data, dtype=getattr(facula, dtype), order="F")
    fortran = np.asfortranarray(data.astype(dtype))
    assert t.stride() == tuple(s // fortran.itemsize for s in fortran.strides)
    assert not t.is_contiguous() and t.t().is_contiguous()
    assert t.numpy().strides == fortran.strides
    np.testing.assert_array_equal(t.numpy(), fortran)
    np.testing.assert_array_equal((t + t).numpy(), fortran * 2)
    np.testing.assert_array_equal(t[:, 1:].numpy(), fortran[:, 1:])
    t[0, 1] = 9
    t += 1
    fortran[0, 1] = 9
    fortran += 1
    np.testing.assert_array_equal(t.numpy(), fortran)
    assert t.numpy().flags.f_contiguous
    np.testing.assert_array_equal(t.t().numpy(), fortran.T)
    assert t.contiguous().numpy().flags.c_contiguous
    assert facula.zeros_like(t).stride() == t.stride()
    for make in (facula.zeros, facula.ones, facula.empty):
        assert make(2, 3, 4, order="F").stride() == (1, 2, 6)
        assert make(2, 3, 4, order="F").numpy().flags.f_contiguous
    with pytest.raises(ValueError):
        facula.zeros(2, order="Z")


def test_column_major_while_pending():
    f = facula.ones(2, 3, order="F")
    view = f[1]
    later = f * 2                                   # read before anybody asks for the layout
    f.mul_(facula.tensor([[1.0, 2, 3], [4, 5, 6]]))
    assert view.tolist() == [4, 5, 6] and view.stride() == (2,)
    assert later.tolist() == [[2, 2, 2], [2, 2, 2]]
    leaf = facula.tensor([[1.0, 2], [3, 4]], order="F", requires_grad=True)
    (leaf * facula.tensor([[1.0, 2], [3, 4]])).sum().backward()
    assert leaf.grad.tolist() == [[1, 2], [3, 4]]


def test_other_devices_are_refused():
    for call in (lambda: facula.zeros(2, device="cuda"), lambda: facula.ones(2).to("cuda:1"),
                 lambda: facula.ones(2).cuda()):
        with pytest.raises(RuntimeError, match="CPU"):
            call()
    assert facula.zeros(2, device="cpu").device == facula.device("cpu")
    assert str(facula.device("cuda", 1)) == "cuda:1" and not facula.cuda.is_available()
    with pytest.raises(RuntimeError):
        facula.device("nonsense")


def test_constants_that_change_in_a_loop():
    total = facula.zeros(3)
    for k in range(20):
        total += facula.full((3,), float(k)) * facula.ones(3)
        total[0] = k
    assert total.tolist() == [19, 190, 190]


def test_names_of_the_package():
    for name in ("pi", "inf", "nan", "e", "newaxis", "float", "double", "half", "long", "int",
                 "short", "cfloat", "cdouble", "Tensor", "Size", "dtype", "finfo", "iinfo",
                 "no_grad", "autograd", "device", "strided", "set_num_threads", "save", "load",
                 "is_tensor", "utils", "nn", "optim", "__version__", "Generator"):
        assert hasattr(facula, name), name
    assert facula.float is facula.float32 and isinstance(facula.int8, facula.dtype)
    assert isinstance(facula.zeros(1), facula.FloatTensor)
    assert not isinstance(facula.zeros(1), facula.LongTensor)
    from facula.ops.define import OPS
    assert not [n for n in OPS if "." not in n and not hasattr(facula, n)]
    with pytest.raises(AttributeError):
        facula.no_such_name
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        mine, theirs = facula.finfo(getattr(facula, dtype)), torch.finfo(getattr(torch, dtype))
        for field in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "dtype"):
            assert getattr(mine, field) == getattr(theirs, field), (dtype, field)
        assert math.isclose(mine.resolution, theirs.resolution)
    for dtype in ("uint8", "int8", "int32", "int64"):
        mine, theirs = facula.iinfo(getattr(facula, dtype)), torch.iinfo(getattr(torch, dtype))
        assert (mine.bits, mine.min, mine.max) == (theirs.bits, theirs.min, theirs.max)


def test_import_loads_only_numpy():
    code = ("import sys, facula; bad = {'llvmlite', 'ml_dtypes', 'PIL', 'scipy', 'torch', "
            "'safetensors'} & set(sys.modules); sys.exit(repr(bad) if bad else 0)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=facula.__file__.rpartition("facula")[0])
    assert done.returncode == 0, done.stderr
