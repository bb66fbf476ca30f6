"""Collating: what becomes of a list of samples."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import facula
from facula.data import collate, default_collate, default_convert
from facula.data.collate import default_collate_fn_map

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize("batch, dtype, values", [
    ([1, 2, 3], facula.int64, [1, 2, 3]),
    ([1.5, 2.0], facula.float64, [1.5, 2.0]),
    ([True, False], facula.bool, [True, False]),
    ([np.float32(1), np.float32(2)], facula.float32, [1, 2]),
    ([np.int16(1), np.int16(2)], facula.int16, [1, 2]),
    ([np.array(1.5), np.array(2.5)], facula.float64, [1.5, 2.5]),
    ([np.array([1, 2], np.uint8), np.array([3, 4], np.uint8)], facula.uint8, [[1, 2], [3, 4]]),
    ([np.array([1, 2], ">i4")], facula.int32, [[1, 2]]),
])
def test_numbers_and_arrays(batch, dtype, values) -> None:
    out = default_collate(batch)
    assert out.dtype is dtype
    assert out.tolist() == values


def test_tensors_are_stacked() -> None:
    out = default_collate([facula.ones(2, 3), facula.zeros(2, 3)])
    assert out.shape == (2, 2, 3) and out.dtype is facula.float32
    assert out[1].sum().item() == 0.0
    empty = default_collate([facula.zeros(0), facula.zeros(0)])
    assert empty.shape == (2, 0)


def test_tensors_with_gradients_keep_them() -> None:
    a = facula.ones(2, requires_grad=True)
    default_collate([a, a * 2]).sum().backward()
    assert a.grad.tolist() == [3.0, 3.0]


def test_containers_keep_their_kind() -> None:
    out = default_collate([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}])
    assert out["a"].tolist() == [1, 2] and out["b"] == ["x", "y"]
    assert type(default_collate([OrderedDict(a=1)])) is OrderedDict
    point = default_collate([Point(1, 2.0), Point(3, 4.0)])
    assert isinstance(point, Point) and point.y.tolist() == [2.0, 4.0]
    pair = default_collate([(1, 2), (3, 4)])
    assert type(pair) is list and [p.tolist() for p in pair] == [[1, 3], [2, 4]]
    assert default_collate([b"a", b"b"]) == [b"a", b"b"]


def test_what_cannot_be_collated() -> None:
    with pytest.raises(TypeError, match="batch must contain tensors, numpy arrays, numbers"):
        default_collate([object()])
    with pytest.raises(TypeError, match="batch must contain"):
        default_collate([None])
    with pytest.raises(TypeError, match="found"):
        default_collate([np.array(["a"])])
    with pytest.raises(RuntimeError, match="each element in list of batch should be of equal"):
        default_collate([[1, 2], [1]])
    with pytest.raises(RuntimeError, match=r"but got \[2\] at entry 0 and \[3\] at entry 1"):
        default_collate([facula.zeros(2), facula.zeros(3)])


def test_own_functions_for_types() -> None:
    class Thing:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(default_collate_fn_map, Thing, lambda b, *, collate_fn_map: len(b))
        assert default_collate([Thing(), Thing()]) == 2
    assert collate([3], collate_fn_map={int: lambda b, *, collate_fn_map: b[0] + 1}) == 4


def test_convert() -> None:
    out = default_convert({"a": np.ones(2), "b": [1, np.zeros(1)], "c": "s", "d": 3})
    assert isinstance(out["a"], facula.Tensor) and isinstance(out["b"][1], facula.Tensor)
    assert out["c"] == "s" and out["d"] == 3
    assert isinstance(default_convert(np.float32(3)), facula.Tensor)
    assert isinstance(default_convert(Point(np.ones(1), 2)), Point)
    strings = np.array(["a"])
    assert default_convert(strings) is strings


def test_same_as_torch() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import default_collate as theirs
    batches = [[1, 2], [1.0, 2.0], [True, True], [1, 2.5], [np.float64(1), np.float64(2)],
               [np.bool_(True)], [(1, [2.0, "a"]), (3, [4.0, "b"])], [{"k": (1, 2)}, {"k": (3, 4)}]]

    def flat(x):
        if isinstance(x, (torch.Tensor, facula.Tensor)):
            return str(x.dtype).split(".")[1], x.tolist()
        if isinstance(x, dict):
            return {k: flat(v) for k, v in x.items()}
        return [flat(v) for v in x] if isinstance(x, (list, tuple)) else x
    for batch in batches:
        assert flat(default_collate(batch)) == flat(theirs(batch)), batch
