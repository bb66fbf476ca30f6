"""facula.testing: what is close, what the messages say, and what tensors are made."""

import math

import numpy as np
import pytest

import facula
from facula.testing import assert_close, make_tensor

t = facula.tensor


@pytest.mark.parametrize("a,b", [
    (t([1.0, 2.0]), t([1.0, 2.0 + 2e-6])), (t([]), t([])), (t(1), t(1)), (1.0, 1.0 + 1e-9),
    (1, 1), (True, True), (None, None), ([t(1.0), 2], (t(1.0), 2)),
    ({"a": t([1.0])}, {"a": t([1.0])}), (t([math.inf, -math.inf]), t([math.inf, -math.inf])),
    (t([1 + 1j]), t([1 + 1j])), (np.ones(3), np.ones(3)), (np.float32(1), np.float32(1)),
    (t([1.0], dtype=facula.bfloat16), t([1.01], dtype=facula.bfloat16)),
    (t([2 ** 62, 1]), t([2 ** 62, 1])),
])
def test_close(a, b):
    assert_close(a, b)


@pytest.mark.parametrize("a,b,words", [
    (t([1.0, 2.0]), t([1.0, 2.5]), ["Tensor-likes are not close!", "1 / 2 (50.0%)",
                                    "absolute difference: 0.5 at index (1,) (up to 1e-05",
                                    "relative difference: 0.2 at index (1,) (up to 1.3e-06"]),
    (t(1.0), t(2.0), ["Scalars are not close!", "Expected 2.0 but got 1.0."]),
    (t([1.0]), t([[1.0]]), ["attribute 'shape' do not match"]),
    (t([1.0]), t([1.0], dtype=facula.float64), ["attribute 'dtype' do not match"]),
    (1, 2.5, ["(d)types do not match"]), (1.0, 2.0, ["Expected 2.0 but got 1.0."]),
    ([t(1.0)], [t(1.0), t(2.0)], ["length of the sequences mismatch: 1 != 2"]),
    ({"a": [t([1, 2])]}, {"a": [t([1, 3])]}, ["not equal!", "occurred for item ['a'][0]"]),
    ({"a": 1}, {"b": 1}, ["Missing keys in the actual mapping: ['b']", "Additional keys"]),
    (t([True]), t([False]), ["not equal!"]), (None, 1, ["None mismatch"]),
    (True, False, ["Booleans mismatch"]), (t([math.nan]), t([math.nan]), ["not close"]),
    (t([math.inf]), t([1.0]), ["not close"]), (t([1.0]), t([math.inf]), ["not close"]),
    (t([2 ** 62]), t([2 ** 62 + 1]), ["absolute difference: 1 at index (0,)"]),
    (t([0, 255], dtype=facula.uint8), t([255, 255], dtype=facula.uint8), ["difference: 255"]),
])
def test_not_close(a, b, words):
    with pytest.raises(AssertionError) as error:
        assert_close(a, b)
    for word in words:
        assert word in str(error.value)


def test_what_may_be_asked_for():
    assert_close(t([1.0]), t([1.5]), rtol=0, atol=0.5)
    assert_close(t([math.nan]), t([math.nan]), equal_nan=True)
    assert_close(t([1.0]), t([1.0], dtype=facula.float64), check_dtype=False)
    assert_close(1, 1.0, check_dtype=False)
    with pytest.raises(ValueError, match="both be specified"):
        assert_close(t(1.0), t(1.0), rtol=1.0)
    with pytest.raises(AssertionError, match=r"^mine$"):
        assert_close(t(1.0), t(2.0), msg="mine")
    with pytest.raises(AssertionError, match=r"^of x: Scalars"):
        assert_close(t(1.0), t(2.0), msg=lambda text: f"of x: {text}")
    with pytest.raises(TypeError):
        assert_close(t([1.0]), [1.0])
    with pytest.raises(TypeError):
        assert_close("a", "a")
    with pytest.raises(AssertionError, match="stride"):
        assert_close(facula.zeros(2, 3).t(), facula.zeros(3, 2), check_stride=True)


@pytest.mark.parametrize("dtype", [facula.float32, facula.float64, facula.float16,
                                   facula.bfloat16, facula.int64, facula.int8, facula.uint8,
                                   facula.bool, facula.complex64])
def test_made(dtype):
    facula.manual_seed(0)
    for shape in ((), (0,), (3, 4), (1,)):
        x = make_tensor(shape, dtype=dtype, device="cpu")
        assert x.shape == shape and x.dtype is dtype and x.is_contiguous()
    x = make_tensor(40, 5, dtype=dtype)
    values = x.to(facula.complex64 if dtype.is_complex else facula.float32).numpy()
    low, high = (0, 2) if dtype is facula.bool else (0, 10) if dtype is facula.uint8 else (-9, 10)
    assert (values.real >= low).all() and (values.real < high).all()
    assert len(np.unique(values)) > 1
    y = make_tensor(40, 6, dtype=dtype, noncontiguous=True)
    assert y.shape == (40, 6) and not y.is_contiguous()
    z = make_tensor(200, dtype=dtype, low=0, high=2, exclude_zero=True)
    assert (z != 0).all()


def test_made_as_asked():
    assert make_tensor(3, dtype=facula.float32, requires_grad=True).requires_grad
    x = make_tensor(50, dtype=facula.float32, low=2, high=3)
    assert (x >= 2).all() and (x <= 3).all()
    assert (make_tensor(50, dtype=facula.uint8, low=-5, high=3) < 3).all()
    assert make_tensor(2, dtype=facula.float64, low=-1.7e308, high=1.7e308).isfinite().all()
    four = make_tensor(2, 3, 4, 5, dtype=facula.float32, memory_format=facula.channels_last)
    assert four.is_contiguous(memory_format=facula.channels_last)
    for rest in ({"dtype": facula.float32, "low": 3, "high": 2},
                 {"dtype": facula.int64, "low": 2, "high": 2},
                 {"dtype": facula.float32, "low": math.nan},
                 {"dtype": facula.int8, "low": 300, "high": 400},
                 {"dtype": facula.int64, "requires_grad": True},
                 {"dtype": facula.float32, "noncontiguous": True,
                  "memory_format": facula.channels_last}):
        with pytest.raises(ValueError):
            make_tensor(2, 2, **rest)


def test_messages_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    for a, b in (([1.0, 2.0], [1.0, 2.5]), ([1, 2], [1, 3]), (1.0, 2.0), ([1.0], [2.0, 1.0])):
        texts = []
        for library in (facula, torch):
            with pytest.raises(AssertionError) as error:
                library.testing.assert_close(library.tensor(a, dtype=library.float64),
                                             library.tensor(b, dtype=library.float64))
            texts.append(str(error.value).replace("torch", "facula"))
        assert texts[0] == texts[1]


def test_integers_of_any_length_are_compared_exactly():
    assert_close(2 ** 70, 2 ** 70)
    with pytest.raises(AssertionError, match="Absolute difference: 1"):
        assert_close(2 ** 70 + 1, 2 ** 70)
