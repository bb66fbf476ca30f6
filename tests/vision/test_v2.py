"""torchvision's second set of names for transforms."""

import numpy as np
import pytest
from PIL import Image

import facula
from facula import nn
from facula.vision import transforms as T
from facula.vision.transforms import v2

PIXELS = np.random.RandomState(0).randint(0, 256, (9, 7, 3)).astype(np.uint8)


def test_the_first_names_are_the_same_transforms():
    kinds = {n for n in T.__all__ if isinstance(getattr(T, n), type)}
    assert kinds <= set(v2.__all__)
    assert [n for n in kinds if getattr(T, n) is not getattr(v2, n)] == ["Compose"]


def test_images_as_tensors():
    to = v2.ToImage()
    for image in (Image.fromarray(PIXELS), PIXELS, facula.tensor(PIXELS.transpose(2, 0, 1))):
        out = to(image)
        assert out.dtype == facula.uint8
        np.testing.assert_array_equal(out.numpy(), PIXELS.transpose(2, 0, 1))
    assert to(PIXELS[..., 0]).shape == to(facula.tensor(PIXELS[..., 0])).shape == (1, 9, 7)
    with pytest.raises(TypeError):
        to("image")
    with pytest.raises(ValueError, match="2 or 3"):
        to(np.zeros(3))


def test_dtypes():
    image = v2.ToImage()(PIXELS)
    np.testing.assert_array_equal(v2.ToDtype(facula.float32)(image).numpy(),
                                  PIXELS.transpose(2, 0, 1).astype(np.float32))
    scaled = v2.ToDtype(facula.float32, scale=True)
    assert facula.equal(scaled(image), T.ToTensor()(PIXELS))
    assert facula.equal(v2.ToDtype(facula.uint8, scale=True)(scaled(image)), image)
    with pytest.raises(TypeError, match="ToImage"):
        scaled(Image.fromarray(PIXELS))
    with pytest.raises(TypeError, match="float32"):
        v2.ToDtype("float32")


def test_the_usual_composition():
    transform = v2.Compose([v2.ToImage(), v2.RandomCrop(6, padding=1), v2.RandomHorizontalFlip(),
                            v2.ToDtype(facula.float32, scale=True),
                            v2.Normalize([0.5] * 3, [0.25] * 3), v2.ToPureTensor()])
    first = T.Compose([T.RandomCrop(6, padding=1), T.RandomHorizontalFlip(), T.ToTensor(),
                       T.Normalize([0.5] * 3, [0.25] * 3)])
    facula.manual_seed(0)
    out = [transform(Image.fromarray(PIXELS)) for _ in range(4)]
    facula.manual_seed(0)
    assert all(facula.equal(first(Image.fromarray(PIXELS)), o) for o in out)
    assert isinstance(transform, nn.Module) and not transform.state_dict()
    assert repr(transform).startswith("Compose(\n      ToImage()\n      RandomCrop(")
    with pytest.raises(TypeError, match="sequence"):
        v2.Compose(v2.ToImage())
    with pytest.raises(ValueError, match="at least one"):
        v2.Compose([])
