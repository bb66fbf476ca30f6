"""Transforms of colour and sharpness: against Pillow, against formulas, one image or many."""

import numpy as np
import pytest

import facula
from facula.vision import transforms as T
from facula.vision.transforms import functional as F

PIL = pytest.importorskip("PIL")
from PIL import Image, ImageEnhance, ImageOps  # noqa: E402

RNG = np.random.RandomState(0)
PIXELS = RNG.randint(0, 256, (9, 11, 3)).astype(np.uint8)


def picture(pixels=PIXELS):
    return Image.fromarray(pixels)


def tensor(pixels=PIXELS):
    return facula.tensor(pixels.transpose(2, 0, 1).copy())


def planes(image):
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("name,pillow,near", [
    ("brightness", ImageEnhance.Brightness, 1), ("contrast", ImageEnhance.Contrast, 1),
    ("saturation", ImageEnhance.Color, 1), ("sharpness", ImageEnhance.Sharpness, 2)])
def test_enhancing_is_pillows(name, pillow, near, factor):
    fn = getattr(F, f"adjust_{name}")
    wanted = planes(pillow(picture()).enhance(factor)).astype(int)
    image = fn(picture(), factor)
    assert isinstance(image, Image.Image)
    assert np.abs(planes(image).astype(int) - wanted).max() <= near
    got = fn(tensor(), factor)
    assert got.dtype is facula.uint8
    assert np.abs(got.numpy().astype(int) - wanted).max() <= 3
    floats = fn(tensor().float() / 255, factor).numpy()
    assert floats.dtype == np.float32 and 0 <= floats.min() and floats.max() <= 1
    assert np.abs(floats * 255 - wanted).max() <= 3


@pytest.mark.parametrize("fn,wanted", [
    (F.invert, ImageOps.invert), (F.equalize, ImageOps.equalize),
    (lambda i: F.posterize(i, 3), lambda i: ImageOps.posterize(i, 3)),
    (lambda i: F.solarize(i, 100), lambda i: ImageOps.solarize(i, 100)),
    (F.autocontrast, ImageOps.autocontrast)])
def test_tables_are_pillows(fn, wanted):
    narrow = (PIXELS // 3 + 40).astype(np.uint8)
    for pixels in (PIXELS, narrow, np.full_like(PIXELS, 7)):
        want = planes(wanted(picture(pixels))).astype(int)
        for got in (planes(fn(picture(pixels))), fn(tensor(pixels)).numpy()):
            assert np.abs(got.astype(int) - want).max() <= 1


def test_hue():
    import colorsys
    x = tensor().float() / 255
    for turn in (-0.5, -0.2, 0.0, 0.1, 0.5):
        got = F.adjust_hue(x, turn).numpy()
        for i, j in ((0, 0), (3, 5), (8, 10)):
            h, s, v = colorsys.rgb_to_hsv(*x[:, i, j].tolist())
            np.testing.assert_allclose(got[:, i, j], colorsys.hsv_to_rgb((h + turn) % 1, s, v),
                                       atol=1e-5)
    same = F.adjust_hue(tensor(), 0.0).numpy().astype(int)
    assert np.abs(same - tensor().numpy()).max() <= 1
    gray = facula.full((3, 2, 2), 0.25)
    assert (F.adjust_hue(gray, 0.3) == gray).all()
    one = facula.rand(1, 4, 4)
    assert (F.adjust_hue(one, 0.3) == one).all()
    assert F.adjust_hue(picture(), 0.25).size == (11, 9)


def test_gamma():
    x = tensor()
    want = np.clip(x.numpy() / 255.0, 0, 1) ** 2.2
    np.testing.assert_allclose(F.adjust_gamma(x.float() / 255, 2.2).numpy(), want, rtol=1e-4,
                               atol=1e-6)
    assert np.abs(F.adjust_gamma(x, 2.2).numpy() - np.floor(want * 255.999)).max() <= 1


def test_blur():
    x = facula.rand(2, 3, 8, 9, dtype=facula.float64)
    got = F.gaussian_blur(x, [3, 5], [0.7, 1.3]).numpy()

    def weights(n, s):
        w = np.exp(-0.5 * ((np.arange(n) - n // 2) / s) ** 2)
        return w / w.sum()

    kernel = np.outer(weights(5, 1.3), weights(3, 0.7))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (1, 1)), mode="reflect")
    want = sum(kernel[i, j] * padded[..., i:i + 8, j:j + 9] for i in range(5) for j in range(3))
    np.testing.assert_allclose(got, want, rtol=1e-12)
    flat = facula.full((3, 5, 5), 9, dtype=facula.uint8)
    assert (F.gaussian_blur(flat, 3) == 9).all()
    assert F.gaussian_blur(picture(), 3, 1.0).size == (11, 9)


def test_blur_is_as_a_convolution():
    torch = pytest.importorskip("torch")
    x = RNG.rand(1, 1, 7, 7).astype("f")
    w = np.exp(-0.5 * (np.arange(-1, 2) / 0.8) ** 2)
    w = np.outer(w, w) / w.sum() ** 2
    padded = torch.nn.functional.pad(torch.tensor(x), (1, 1, 1, 1), mode="reflect")
    want = torch.nn.functional.conv2d(padded, torch.tensor(w[None, None].astype("f")))
    np.testing.assert_allclose(F.gaussian_blur(facula.tensor(x), 3, 0.8).numpy(), want.numpy(),
                               rtol=1e-5)


OBJECTS = [
    T.ColorJitter(0.4, (0.5, 1.5), 0.3, 0.1), T.GaussianBlur(3), T.RandomInvert(),
    T.RandomAutocontrast(), T.RandomEqualize(), T.RandomPosterize(4), T.RandomSolarize(128),
    T.RandomAdjustSharpness(2)]


@pytest.mark.parametrize("transform", OBJECTS, ids=lambda t: type(t).__name__)
def test_objects(transform):
    pixels = RNG.randint(0, 200, (40, 30, 3)).astype(np.uint8)
    facula.manual_seed(3)
    results = [transform(tensor(pixels)).numpy() for _ in range(12)]
    assert any((r != results[0]).any() for r in results)
    assert all(r.dtype == np.uint8 and r.shape == (3, 40, 30) for r in results)
    facula.manual_seed(3)
    for r in results:
        assert (transform(tensor(pixels)).numpy() == r).all()
    assert isinstance(transform(picture()), Image.Image)
    assert repr(transform).startswith(type(transform).__name__ + "(")


def test_in_a_composition():
    facula.manual_seed(0)
    transform = T.Compose([T.RandomResizedCrop(8), T.RandomApply([T.ColorJitter(.8, .8, .8, .2)],
                                                                 p=0.8),
                           T.RandomGrayscale(p=0.2), T.GaussianBlur((3, 3), (1.0, 2.0)),
                           T.ToTensor(), T.Normalize([0.5] * 3, [0.25] * 3)])
    out = transform(picture())
    assert out.shape == (3, 8, 8) and out.isfinite().all()


def test_several_crops():
    x = tensor()
    five = T.FiveCrop((4, 5))(x)
    assert [tuple(c.shape) for c in five] == [(3, 4, 5)] * 5
    assert (five[3] == x[:, -4:, -5:]).all() and (five[1] == x[:, :4, -5:]).all()
    ten = T.TenCrop(4)(picture())
    assert len(ten) == 10 and ten[5].size == (4, 4)
    assert (F.ten_crop(x, 4, vertical_flip=True)[5] == x.flip(1)[:, :4, :4]).all()
    with pytest.raises(ValueError, match="bigger than input"):
        T.FiveCrop(40)(x)


def test_linear_transformation():
    x = facula.rand(2, 1, 2, 2)
    out = T.LinearTransformation(facula.eye(4) * 2, facula.ones(4))(x)
    assert facula.allclose(out, (x - 1) * 2)
    with pytest.raises(ValueError, match="square"):
        T.LinearTransformation(facula.ones(4, 3), facula.ones(4))


@pytest.mark.parametrize("call,kind,message", [
    (lambda: T.ColorJitter(-1), ValueError, "non negative"),
    (lambda: T.ColorJitter(hue=0.6), ValueError, "between"),
    (lambda: T.ColorJitter("a"), TypeError, "single number"),
    (lambda: T.GaussianBlur(4), ValueError, "odd and positive"),
    (lambda: T.GaussianBlur(3, (2, 1)), ValueError, "min, max"),
    (lambda: F.gaussian_blur(tensor(), 31), facula.errors.ShapeError, "smaller kernel"),
    (lambda: F.adjust_hue(tensor(), 1), ValueError, "not in"),
    (lambda: F.adjust_contrast(tensor(), -1), ValueError, "non-negative"),
    (lambda: F.posterize(tensor(), 9), ValueError, "between 0 and 8"),
    (lambda: F.equalize(tensor().float()), TypeError, "uint8")])
def test_what_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
