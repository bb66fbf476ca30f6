"""Tensors as NumPy arrays, Python numbers, other dtypes and other libraries' tensors."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import facula


def test_numpy_shares_memory_both_ways():
    a = np.arange(6.0).reshape(2, 3)
    t = facula.from_numpy(a)
    assert t.numpy().__array_interface__["data"] == a.__array_interface__["data"]
    a[0, 0] = 10
    assert t[0, 0].item() == 10
    t[1, 2] = 7
    assert a[1, 2] == 7
    t += 1
    assert a[0, 0] == 11
    t.view(3, 2)[0].mul_(2)
    assert a[0].tolist() == [22, 4, 3]
    b = (t * 2).numpy()
    u = facula.as_tensor(b)
    b[0, 0] = -1
    assert u[0, 0].item() == -1
    assert np.asarray(u) is not None and np.shares_memory(np.asarray(u), b)
    x = facula.ones(3)
    y = x.numpy()
    x.add_(1)
    assert y.tolist() == [2, 2, 2]
    y[:] = 5
    assert (x + 1).tolist() == [6, 6, 6]
    assert x.detach().numpy()[0] == 5


@pytest.mark.parametrize("make", [
    lambda a: a.T, lambda a: a[::2], lambda a: a[::-1], lambda a: a[:, 1::2], lambda a: a[1],
    lambda a: a[:, ::-1].T, lambda a: a.transpose(1, 0)[1:]])
def test_strided_arrays_share(make):
    base = np.arange(24.0).reshape(4, 6)
    a = make(base)
    t = facula.from_numpy(a)
    assert t.stride() == tuple(s // 8 for s in a.strides)
    np.testing.assert_array_equal(t.numpy(), a)
    assert np.shares_memory(t.numpy(), base)
    np.testing.assert_array_equal((t + 1).numpy(), a + 1)
    t += 1
    np.testing.assert_array_equal(t.numpy(), a)
    assert base.max() == 24 or a.size < base.size
    t[..., 0] = -5.0
    np.testing.assert_array_equal(t.numpy(), a)
    assert (base == -5).any()
    np.testing.assert_array_equal(t[..., 1:].numpy(), a[..., 1:])


def test_arrays_that_cannot_be_shared():
    a = np.arange(3.0)
    a.flags.writeable = False
    t = facula.from_numpy(a)
    t += 1
    assert a.tolist() == [0, 1, 2] and t.tolist() == [1, 2, 3]
    assert facula.from_numpy(np.arange(3, dtype=">i4")).tolist() == [0, 1, 2]
    packed = np.zeros(3, [("a", "i1"), ("b", "<f8")])["b"]
    assert facula.from_numpy(packed).tolist() == [0, 0, 0]
    for bad in (np.array(["x"]), np.array([None]), np.zeros(2, "M8[s]")):
        with pytest.raises(TypeError):
            facula.from_numpy(bad)
    with pytest.raises(TypeError):
        facula.from_numpy([1, 2])


def test_numpy_refuses_gradients():
    t = facula.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="detach"):
        t.numpy()
    with pytest.raises(RuntimeError, match="detach"):
        np.asarray(t * 2)
    assert t.detach().numpy().tolist() == [1, 1] and t.numpy(force=True).tolist() == [1, 1]


def test_numpy_functions_take_tensors():
    t = facula.tensor([0.0, 1.0])
    assert isinstance(np.sin(t), facula.Tensor)
    np.testing.assert_allclose(np.sin(t), np.sin([0, 1]), rtol=1e-6)
    both = np.ones(2, np.float32) + t
    assert isinstance(both, facula.Tensor) and both.tolist() == [1, 2]
    assert np.array(t, dtype=np.float64).dtype == np.float64
    assert np.array(t, copy=True).base is not t


def test_python_numbers():
    one = facula.tensor([[3]])
    assert one.item() == 3 and int(one) == 3 and float(one) == 3.0 and complex(one) == 3
    assert bool(one) and [10, 20, 30, 40][one] == 40 and range(5)[facula.tensor(2)] == 2
    assert facula.tensor(1 + 2j).item() == 1 + 2j and facula.tensor(True).item() is True
    assert type(facula.tensor(2.5).half().item()) is float
    assert type(facula.tensor(2.5).bfloat16().item()) is float
    assert facula.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert facula.tensor(5).tolist() == 5 and facula.zeros(0).tolist() == []
    assert facula.tensor([1.5]).bfloat16().tolist() == [1.5]
    assert f"{facula.tensor(1.2345):.2f} {facula.tensor(3)}" == "1.23 3"
    with pytest.raises(TypeError):
        f"{facula.tensor([1.0]):.2f}"
    for wrong in (facula.zeros(0), facula.zeros(2)):
        with pytest.raises(RuntimeError, match="cannot be converted to Scalar"):
            wrong.item()
        with pytest.raises(RuntimeError, match="ambiguous"):
            bool(wrong)
    with pytest.raises(TypeError, match="index"):
        range(5)[facula.tensor(1.5)]
    assert len(facula.zeros(3, 2)) == 3


def test_dtypes():
    t = facula.tensor([0.0, -1.7, 2.5])
    for name, dtype in (("double", "float64"), ("half", "float16"), ("bfloat16", "bfloat16"),
                        ("long", "int64"), ("int", "int32"), ("short", "int16"),
                        ("char", "int8"), ("bool", "bool"), ("cfloat", "complex64"),
                        ("cdouble", "complex128"), ("float", "float32")):
        assert getattr(t, name)().dtype is getattr(facula, dtype)
    assert t.float() is t and t.to(facula.float32) is t and t.to("cpu") is t
    assert t.to(facula.float32, copy=True) is not t
    assert t.long().tolist() == [0, -1, 2] and t.bool().tolist() == [False, True, True]
    assert t.to("cpu", facula.int32).dtype is facula.int32
    assert t.to(facula.zeros(1).double()).dtype is facula.float64
    assert t.to(dtype=facula.int8, device="cpu", non_blocking=True).dtype is facula.int8
    assert t.type() == "facula.FloatTensor" and t.type("facula.LongTensor").dtype is facula.int64
    assert t.type(facula.float64).dtype is facula.float64
    assert t.type(facula.DoubleTensor).dtype is facula.float64
    assert t.type_as(facula.zeros(1).int()).dtype is facula.int32
    with pytest.warns(UserWarning, match="imaginary"):
        assert facula.tensor([1 + 2j]).float().tolist() == [1]
    with pytest.raises(TypeError):
        t.to(object())
    x = facula.ones(2, requires_grad=True)
    x.double().sum().backward()
    assert x.grad.dtype is facula.float32


def test_copies():
    t = facula.tensor([[1.0, 2], [3, 4]])
    c = t.clone()
    c[0, 0] = 9
    assert t[0, 0].item() == 1
    assert t.copy_(facula.tensor([10, 20])) is t and t.tolist() == [[10, 20], [10, 20]]
    t[0].copy_(facula.tensor([1.5, 2.5]))
    assert t.tolist() == [[1.5, 2.5], [10, 20]]
    with pytest.raises(RuntimeError):
        t.copy_(facula.zeros(3))
    assert t.fill_(3).tolist() == [[3, 3], [3, 3]] and t.zero_().sum().item() == 0
    assert t.fill_(facula.tensor(2)).sum().item() == 8
    with pytest.raises(RuntimeError, match="0-dimension"):
        t.fill_(facula.zeros(2))
    with pytest.raises(RuntimeError):
        t.fill_(1j)
    i = facula.zeros(2, dtype=facula.int64)
    assert i.fill_(2.9).tolist() == [2, 2]
    x = facula.ones(2, requires_grad=True)
    y = facula.zeros(2, 2)
    y.copy_(x)
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_copy_protocols():
    leaf = facula.tensor([1.0, 2.0], requires_grad=True)
    (leaf * 3).sum().backward()
    twin = copy.deepcopy({"a": leaf, "b": leaf})
    assert twin["a"] is twin["b"] and twin["a"].requires_grad and twin["a"].is_leaf
    assert twin["a"].grad.tolist() == [3, 3] and twin["a"].grad is not leaf.grad
    with facula.no_grad():
        twin["a"][0] = 100
    assert leaf[0].item() == 1
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(leaf * 2)
    t = facula.zeros(2)
    copy.copy(t)[0] = 1
    assert t.tolist() == [1, 0]


def test_facts():
    t = facula.zeros(2, 3, dtype=facula.float64)
    assert (t.dim(), t.ndimension(), t.nelement(), t.numel()) == (2, 2, 6, 6)
    assert (t.element_size(), t.itemsize, t.nbytes) == (8, 8, 48)
    assert t.size() == (2, 3) and t.size(-1) == 3 and isinstance(t.size(), facula.Size)
    with pytest.raises(IndexError):
        t.size(2)
    assert t.is_floating_point() and not t.is_complex() and t.is_signed()
    assert t.device.type == "cpu" and not t.is_cuda and t.layout is facula.strided
    assert t.cpu() is t and facula.is_tensor(t) and not facula.is_tensor(3)
    assert t.data_ptr() == t.detach().data_ptr() != 0
    assert t[1:].data_ptr() == t.data_ptr() + 24
    pointer = t.data_ptr()
    t.add_(1)
    assert t.data_ptr() == pointer
    assert facula.typename(t) == "facula.DoubleTensor"
    assert t.untyped_storage().nbytes() == 48 and t.names == (None, None)
    assert "add_" in dir(t) and hash(t) == hash(t)
    assert facula.Size([2, 3]).numel() == 6 and repr(t.shape) == "facula.Size([2, 3])"


def test_dlpack_with_numpy():
    t = facula.tensor([[1.0, 2], [3, 4]])
    a = np.from_dlpack(t)
    t[0, 0] = 8
    assert a[0, 0] == 8 and t.__dlpack_device__() == (1, 0)
    u = facula.from_dlpack(np.arange(4, dtype=np.int16))
    assert u.dtype is facula.int16 and u.tolist() == [0, 1, 2, 3]
    with pytest.raises(BufferError):
        facula.ones(1, requires_grad=True).__dlpack__()
    with pytest.raises(TypeError):
        facula.from_dlpack(3)


def test_dlpack_with_pytorch():
    torch = pytest.importorskip("torch")
    theirs = torch.arange(6.0).reshape(2, 3).t()
    mine = facula.from_dlpack(theirs)
    mine[0, 0] = 50
    assert theirs[0, 0].item() == 50 and mine.stride() == theirs.stride()
    back = torch.from_dlpack(mine)
    back[2, 1] = -1
    assert mine[2, 1].item() == -1
    half = facula.from_dlpack(torch.ones(2).bfloat16())
    assert half.dtype is facula.bfloat16 and half.tolist() == [1, 1]
    assert facula.tensor(torch.tensor([1, 2])).tolist() == [1, 2]
    assert facula.as_tensor(torch.tensor([1.5])).dtype is facula.float32
    assert facula.utils.dlpack.from_dlpack(torch.zeros(2)).tolist() == [0, 0]


def test_legacy_storage_questions():
    t = facula.zeros(4)
    v = t[1:]
    assert v.untyped_storage().data_ptr() == t.untyped_storage().data_ptr()
    assert not t.is_conj() and t.resolve_conj() is t
    u = facula.empty(0)
    u.set_(t)
    u[0] = 3
    assert t[0].item() == 3 and u.is_set_to(t)
    assert facula.tensor([1.0, 2]).apply_(lambda v: v * 2).tolist() == [2, 4]


def test_memory_is_private_again_when_the_array_is_gone():
    x = facula.ones(4)
    a = x.numpy()
    part = a[1:]
    x.add_(1)
    np.testing.assert_array_equal(a, 2 * np.ones(4))
    del a
    x.add_(1)
    np.testing.assert_array_equal(part, 3 * np.ones(3))      # what was made of it counts too
    part[:] = 7
    assert x.tolist() == [3, 7, 7, 7]
    buffer = x._memory()[0]
    assert buffer.shared
    del part
    assert not buffer.shared
    x.add_(1)
    assert x.tolist() == [4, 8, 8, 8]
    address = x.data_ptr()
    assert x._memory()[0].shared and x.data_ptr() == address
