"""Transforms against what torchvision is documented to do, worked out by hand."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import facula
from facula.vision import transforms as T
from facula.vision.image import Image, from_planes, is_image, to_planes
from facula.vision.transforms import functional as F
from facula.vision.transforms import pixels

GRID = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOURS = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


def kinds(pixels_: np.ndarray):
    """The same picture as every kind of thing that transforms take."""
    mode = "L" if pixels_.ndim == 2 else "RGB"
    out = [Image(pixels_, mode)]
    planes = pixels_[None] if pixels_.ndim == 2 else np.moveaxis(pixels_, 2, 0)
    out.append(facula.tensor(np.ascontiguousarray(planes)))
    try:
        import PIL.Image
    except ImportError:
        return out
    return [*out, PIL.Image.fromarray(pixels_)]


def planes_of(img) -> np.ndarray:
    return to_planes(img) if is_image(img) else img.numpy()


def check(function, source: np.ndarray, expected) -> None:
    expected = np.asarray(expected, np.uint8)
    for img in kinds(source):
        out = function(img)
        assert type(out) is type(img) or is_image(out) == is_image(img)
        got = planes_of(out)
        want = expected[None] if expected.ndim == 2 else np.moveaxis(expected, 2, 0)
        assert got.shape == want.shape and np.array_equal(got, want), type(img)


def test_to_tensor() -> None:
    for img in kinds(GRID)[::2]:
        out = T.ToTensor()(img)
        assert out.shape == (1, 3, 4) and out.dtype is facula.float32
        assert np.array_equal(out.numpy(), GRID[None].astype(np.float32) / np.float32(255))
    for img in kinds(COLOURS)[::2]:
        assert np.array_equal(F.pil_to_tensor(img).numpy(), COLOURS.transpose(2, 0, 1))
    assert F.to_tensor(COLOURS).shape == (3, 3, 4)
    assert F.to_tensor(np.ones((2, 2))).dtype is facula.float64
    assert F.to_tensor(Image(np.array([[-5, 70000]]), "I")).tolist() == [[[-5, 70000]]]
    with pytest.raises(TypeError, match="pic should be PIL Image or ndarray"):
        F.to_tensor(facula.zeros(3))
    with pytest.raises(ValueError, match="2/3 dimensional"):
        F.to_tensor(np.zeros(3))


def test_bits_become_zero_and_one() -> None:
    assert F.to_tensor(Image(np.array([[1, 0]]), "1")).tolist() == [[[1.0, 0.0]]]
    pillow = pytest.importorskip("PIL.Image")
    img = pillow.fromarray(np.array([[255, 0]], np.uint8)).convert("1")
    assert F.to_tensor(img).tolist() == [[[1.0, 0.0]]]


def test_to_pil_image_and_back() -> None:
    for source in (GRID, COLOURS):
        assert np.array_equal(np.asarray(F.to_pil_image(F.to_tensor(source))), source)
    assert F.to_pil_image(np.zeros((2, 2), np.float32)).mode == "F"
    assert F.to_pil_image(np.zeros((2, 2, 4), np.uint8)).mode == "RGBA"
    for bad, error in ((facula.zeros(5, 2, 2), ValueError), (facula.zeros(2), ValueError),
                       (3, TypeError), (np.zeros((2, 2), np.int64), TypeError)):
        with pytest.raises(error):
            F.to_pil_image(bad)
    with pytest.raises(ValueError, match="Incorrect mode"):
        F.to_pil_image(GRID, "F")


def test_normalize() -> None:
    x = facula.tensor([[[0.5, 1.0]], [[0.0, 2.0]]])
    out = T.Normalize((0.5, 1.0), (0.5, 2.0))(x)
    assert out.tolist() == [[[0.0, 1.0]], [[-0.5, 0.5]]]
    assert x[0, 0, 0].item() == 0.5
    assert T.Normalize([1.0], [2.0])(x).tolist() == [[[-0.25, 0.0]], [[-0.5, 0.5]]]
    T.Normalize((0.5, 1.0), (0.5, 2.0), inplace=True)(x)
    assert x.tolist() == out.tolist()
    with pytest.raises(TypeError, match="float tensor"):
        F.normalize(facula.zeros(1, 2, 2, dtype=facula.uint8), [0.0], [1.0])
    with pytest.raises(TypeError, match="Tensor Image"):
        F.normalize(Image(GRID, "L"), [0.0], [1.0])
    with pytest.raises(ValueError, match=r"size .*C, H, W"):
        F.normalize(facula.zeros(2, 2), [0.0], [1.0])
    with pytest.raises(ValueError, match="std evaluated to zero"):
        F.normalize(facula.zeros(1, 2, 2), [0.0], [0.0])
    with pytest.raises(RuntimeError, match="channels"):
        F.normalize(facula.zeros(1, 2, 2), [0.0, 0.0], [1.0, 1.0])


def test_gradients_pass_or_are_refused() -> None:
    x = facula.ones(1, 2, 3, requires_grad=True)
    F.hflip(F.crop(F.normalize(x, [0.5], [0.25]), 0, 1, 2, 2)).sum().backward()
    assert x.grad.tolist() == [[[0.0, 4.0, 4.0], [0.0, 4.0, 4.0]]]
    with pytest.raises(RuntimeError, match="not differentiable"):
        F.resize(x, [4, 4])


def test_flips() -> None:
    check(F.hflip, GRID, GRID[:, ::-1])
    check(F.vflip, COLOURS, COLOURS[::-1])
    check(T.RandomHorizontalFlip(1.0), COLOURS, COLOURS[:, ::-1])
    check(T.RandomVerticalFlip(0.0), GRID, GRID)


def test_crops() -> None:
    check(lambda i: F.crop(i, 1, 1, 2, 2), GRID, [[5, 6], [9, 10]])
    check(lambda i: F.crop(i, -1, 3, 2, 2), GRID, [[0, 0], [3, 0]])
    check(T.CenterCrop((1, 2)), GRID, [[5, 6]])
    check(T.CenterCrop(2), GRID, [[1, 2], [5, 6]])           # round half to even
    check(T.CenterCrop((5, 4)), GRID, np.pad(GRID, ((1, 1), (0, 0))))
    check(T.CenterCrop((4, 4)), GRID, np.pad(GRID, ((0, 1), (0, 0))))


def test_random_crop() -> None:
    facula.manual_seed(0)
    seen = set()
    for _ in range(60):
        out = T.RandomCrop(2)(facula.tensor(GRID[None])).numpy()[0]
        top, left = divmod(int(out[0, 0]), 4)
        assert np.array_equal(out, GRID[top:top + 2, left:left + 2])
        seen.add((top, left))
    assert len(seen) == 6
    check(T.RandomCrop((3, 4)), GRID, GRID)
    assert T.RandomCrop(6, padding=(1, 2))(Image(GRID, "L")).size == (6, 6)
    assert T.RandomCrop(9, pad_if_needed=True)(Image(GRID, "L")).size == (9, 9)
    with pytest.raises(ValueError, match=r"Required crop size \(5, 5\) is larger than input"):
        T.RandomCrop(5)(Image(GRID, "L"))


def test_pad() -> None:
    check(T.Pad(1), GRID, np.pad(GRID, 1))
    check(T.Pad((1, 2), fill=7), GRID, np.pad(GRID, ((2, 2), (1, 1)), constant_values=7))
    check(T.Pad((1, 2, 3, 0)), GRID, np.pad(GRID, ((2, 0), (1, 3))))
    for mode in ("edge", "reflect", "symmetric"):
        check(T.Pad(2, padding_mode=mode), GRID, np.pad(GRID, 2, mode=mode))
    want = np.pad(COLOURS, ((1, 1), (1, 1), (0, 0)))
    border = np.ones((5, 6), bool)
    border[1:-1, 1:-1] = False
    want[border] = (1, 2, 3)
    check(T.Pad(1, fill=(1, 2, 3)), COLOURS, want)
    for bad in ((1, 2, 3), -1):
        with pytest.raises(ValueError):
            T.Pad(bad)
    with pytest.raises(ValueError, match="Padding mode"):
        T.Pad(1, padding_mode="other")


def test_resize_sizes() -> None:
    img = Image(np.zeros((30, 60), np.uint8), "L")
    assert T.Resize(15)(img).size == (30, 15)
    assert T.Resize([15])(img).size == (30, 15)
    assert T.Resize((10, 20))(img).size == (20, 10)
    assert T.Resize(20, max_size=30)(img).size == (30, 15)
    assert F.resize(img, 30) is img
    with pytest.raises(ValueError, match="max_size"):
        F.resize(img, 20, max_size=20)
    with pytest.raises(TypeError):
        T.Resize("big")


def test_resize_by_hand() -> None:
    row = facula.tensor([[[0.0, 4.0]]])
    assert F.resize(row, [1, 4]).tolist() == [[[0.0, 1.0, 3.0, 4.0]]]
    assert F.resize(row, [1, 1]).tolist() == [[[2.0]]]
    wide = facula.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    assert F.resize(wide, [1, 2], antialias=False).tolist() == [[[0.5, 2.5]]]
    assert F.resize(wide, [1, 2], T.InterpolationMode.NEAREST).tolist() == [[[1.0, 3.0]]]
    assert F.resize(facula.tensor([[[7, 7], [7, 7]]], dtype=facula.int32), [3, 3]).dtype is (
        facula.int32)


@pytest.mark.parametrize("mode", list(T.InterpolationMode))
def test_resize_has_pillows_bits(mode) -> None:
    pillow = pytest.importorskip("PIL.Image")
    number = {"nearest": 0, "nearest-exact": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3,
              "box": 4, "hamming": 5}[mode.value]
    rng = np.random.default_rng(0)
    for shape, size in (((28, 28), (32, 32)), ((13, 9), (13, 40)), ((40, 9), (7, 9)),
                        ((1, 1), (3, 3)), ((20, 20), (5, 5))):
        source = rng.integers(0, 256, shape, np.uint8)
        want = np.asarray(pillow.fromarray(source).resize(size[::-1], number))
        assert np.array_equal(pixels.resize(source, *size, pixels.mode_of(mode)), want)


def test_rotate_by_hand() -> None:
    square = np.arange(4, dtype=np.uint8).reshape(2, 2)
    check(lambda i: F.rotate(i, 90), square, [[1, 3], [0, 2]])
    check(lambda i: F.rotate(i, 180), GRID, GRID[::-1, ::-1])
    check(lambda i: F.rotate(i, 90, expand=True), GRID, np.rot90(GRID))
    check(lambda i: F.rotate(i, 0), GRID, GRID)
    wide = np.arange(15, dtype=np.uint8).reshape(3, 5)
    check(lambda i: F.rotate(i, 90, fill=99), wide,
          [[99, 3, 8, 13, 99], [99, 2, 7, 12, 99], [99, 1, 6, 11, 99]])


@pytest.mark.parametrize("mode, number", [("nearest", 0), ("bilinear", 2)])
def test_rotate_has_pillows_bits(mode, number) -> None:
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for shape in ((28, 28), (20, 31)):
        source = rng.integers(0, 256, shape, np.uint8)
        for angle in (0.0, 10.0, 33.3, -45.0, 90.0, 270.0, 359.0):
            for expand in (False, True):
                want = np.asarray(pillow.fromarray(source).rotate(angle, number, expand,
                                                                  fillcolor=7))
                assert np.array_equal(pixels.rotate(source, angle, mode, expand, None, 7), want)


def test_affine() -> None:
    check(lambda i: F.affine(i, 0, (1, 0), 1.0, 0), GRID,
          [[0, 0, 1, 2], [0, 4, 5, 6], [0, 8, 9, 10]])
    check(lambda i: F.affine(i, 180, (0, 0), 1.0, 0), GRID, GRID[::-1, ::-1])
    check(lambda i: F.affine(i, 0, (0, 0), 2.0, 0), np.arange(4, dtype=np.uint8).reshape(1, 4),
          [[1, 1, 2, 2]])
    with pytest.raises(ValueError, match="scale should be positive"):
        F.affine(Image(GRID, "L"), 0, (0, 0), 0.0, 0)
    out = T.RandomAffine(10, (0.1, 0.2), (0.9, 1.1), 5)(Image(GRID, "L"))
    assert out.size == (4, 3)
    for bad in (dict(degrees=-1), dict(degrees=1, translate=(2, 0)), dict(degrees=1, scale=(0, 1))):
        with pytest.raises(ValueError):
            T.RandomAffine(**bad)


def test_grayscale() -> None:
    source = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)
    want = np.array([[76, 150], [29, 18]], np.uint8)
    check(T.Grayscale(), source, want)
    check(T.Grayscale(3), source, np.repeat(want[..., None], 3, 2))
    for img in kinds(source)[::2]:
        assert T.Grayscale()(img).mode == "L"
    with pytest.raises(TypeError, match="permitted channel values"):
        F.rgb_to_grayscale(facula.zeros(2, 3, 3))


def test_convert_image_dtype() -> None:
    x = facula.tensor([[[0, 128, 255]]], dtype=facula.uint8)
    out = T.ConvertImageDtype(facula.float32)(x)
    assert np.array_equal(out.numpy()[0, 0], np.array([0, 128, 255], np.float32) / np.float32(255))
    assert T.ConvertImageDtype(facula.uint8)(out).tolist() == x.tolist()
    assert F.convert_image_dtype(x, facula.int16).tolist() == [[[0, 128 * 128, 255 * 128]]]
    assert F.convert_image_dtype(x, facula.uint8) is x
    with pytest.raises(TypeError, match="safely"):
        F.convert_image_dtype(out, facula.int32)


def test_erasing() -> None:
    x = facula.ones(3, 8, 8)
    facula.manual_seed(0)
    out = T.RandomErasing(1.0, value=0)(x)
    holes = (out == 0).sum().item()
    assert 0 < holes < 3 * 64 and x.sum().item() == 192
    assert T.RandomErasing(0.0)(x) is x
    colours = T.RandomErasing(1.0, value=[2.0, 3.0, 4.0])(x)
    assert set(np.unique(colours.numpy()[1])) == {1.0, 3.0}
    assert T.RandomErasing(1.0, value="random")(x).dtype is facula.float32
    with pytest.raises(TypeError, match="should be Tensor"):
        F.erase(Image(GRID, "L"), 0, 0, 1, 1, 0)
    assert F.erase(x, 0, 0, 1, 2, 5.0)[0, 0].tolist() == [5.0, 5.0] + [1.0] * 6


def test_composing() -> None:
    both = T.Compose([T.ToTensor(), T.Lambda(lambda t: t * 2)])
    assert both(Image(np.array([[255]], np.uint8), "L")).item() == 2.0
    assert repr(T.Compose([T.ToTensor(), T.Normalize((0.5,), (0.5,))])) == (
        "Compose(\n    ToTensor()\n    Normalize(mean=(0.5,), std=(0.5,))\n)")
    with pytest.raises(TypeError, match="should be callable"):
        T.Lambda(3)


def test_choosing() -> None:
    add = [T.Lambda(lambda t, k=k: t + k) for k in (1, 10)]
    assert T.RandomApply(add, 1.0)(0) == 11 and T.RandomApply(add, 0.0)(0) == 0
    assert T.RandomOrder(add)(0) == 11
    assert {T.RandomChoice(add)(0) for _ in range(40)} == {1, 10}
    assert T.RandomChoice(add, p=[0, 1])(0) == 10


def test_random_follows_the_seed() -> None:
    flip = T.RandomHorizontalFlip()
    x = facula.tensor(GRID[None])

    def row():
        facula.manual_seed(3)
        return [int(flip(x)[0, 0, 0].item()) for _ in range(20)]
    assert row() == row() and set(row()) == {0, 3}


def test_resized_crop() -> None:
    for _ in range(5):
        assert T.RandomResizedCrop(5)(Image(GRID, "L")).size == (5, 5)


def test_refused() -> None:
    for function in (F.hflip, lambda x: F.pad(x, 1), lambda x: F.resize(x, 3)):
        with pytest.raises(TypeError):
            function("a string")


def test_image() -> None:
    img = Image(COLOURS, "RGB")
    assert img.size == (4, 3) and img.getpixel((1, 0)) == (3, 4, 5) and img == img.copy()
    assert from_planes(to_planes(img), "RGB", img) == img and img.getbands() == ("R", "G", "B")
    with pytest.raises(ValueError, match="no image of mode"):
        Image(GRID, "RGB")
    with pytest.raises(ValueError, match="is not one of"):
        Image(GRID, "XYZ")


def test_pillow_is_not_needed() -> None:
    code = """
import sys
sys.modules["PIL"] = None
import facula
from facula.vision import datasets, transforms as T
from facula.data import DataLoader
steps = T.Compose([T.RandomRotation(10), T.Resize(20), T.ToTensor(), T.Normalize((.1,), (.3,))])
data = datasets.MNIST("nowhere", train=False, transform=steps)
raw = datasets.MNIST("nowhere", train=False)
assert type(raw[0][0]).__module__ == "facula.vision.image"
x, y = next(iter(DataLoader(data, batch_size=4)))
print(tuple(x.shape), data[0][0].shape)
"""
    root = os.path.dirname(os.path.dirname(facula.__file__))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": root}, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "(4, 1, 20, 20)" in done.stdout
