"""Transforms as modules: in containers, with hooks, as text."""

import copy
import pickle

import numpy as np
import pytest

import facula
from facula import nn
from facula.data import DataLoader
from facula.vision import transforms as T
from facula.vision.datasets import FakeData
from facula.vision.transforms.pipeline import pipeline

# As torchvision writes them.
REPRS = [
    (lambda: T.ColorJitter(0.5, hue=0.1), "ColorJitter(brightness=(0.5, 1.5), contrast=None, "
     "saturation=None, hue=(-0.1, 0.1))"),
    (lambda: T.RandomHorizontalFlip(), "RandomHorizontalFlip(p=0.5)"),
    (lambda: T.RandomVerticalFlip(0.25), "RandomVerticalFlip(p=0.25)"),
    (lambda: T.RandomPosterize(4), "RandomPosterize(bits=4,p=0.5)"),
    (lambda: T.RandomSolarize(0.5, 0.25), "RandomSolarize(threshold=0.5,p=0.25)"),
    (lambda: T.RandomAdjustSharpness(2), "RandomAdjustSharpness(sharpness_factor=2,p=0.5)"),
    (lambda: T.RandomInvert(), "RandomInvert(p=0.5)"),
    (lambda: T.RandomAutocontrast(), "RandomAutocontrast(p=0.5)"),
    (lambda: T.RandomEqualize(), "RandomEqualize(p=0.5)"),
    (lambda: T.RandomRotation(10), "RandomRotation(degrees=[-10.0, 10.0], interpolation=nearest, "
     "expand=False, fill=0)"),
    (lambda: T.RandomRotation(10, center=(1, 2), fill=None), "RandomRotation(degrees=[-10.0, "
     "10.0], interpolation=nearest, expand=False, center=(1, 2))"),
    (lambda: T.RandomAffine(5, scale=(0.5, 2), fill=3, interpolation=T.InterpolationMode.BILINEAR),
     "RandomAffine(degrees=[-5.0, 5.0], scale=(0.5, 2), interpolation=bilinear, fill=3)"),
    (lambda: T.RandomAffine(5), "RandomAffine(degrees=[-5.0, 5.0])"),
    (lambda: T.RandomResizedCrop(8), "RandomResizedCrop(size=(8, 8), scale=(0.08, 1.0), "
     "ratio=(0.75, 1.3333), interpolation=bilinear, antialias=True)"),
    (lambda: T.Resize(8), "Resize(size=8, interpolation=bilinear, max_size=None, "
     "antialias=True)"),
    (lambda: T.CenterCrop(8), "CenterCrop(size=(8, 8))"),
    (lambda: T.RandomCrop(8, 2), "RandomCrop(size=(8, 8), padding=2)"),
    (lambda: T.Pad(2), "Pad(padding=2, fill=0, padding_mode=constant)"),
    (lambda: T.FiveCrop(4), "FiveCrop(size=(4, 4))"),
    (lambda: T.TenCrop(4), "TenCrop(size=(4, 4), vertical_flip=False)"),
    (lambda: T.Grayscale(3), "Grayscale(num_output_channels=3)"),
    (lambda: T.RandomGrayscale(), "RandomGrayscale(p=0.1)"),
    (lambda: T.Normalize([0.5], [0.25]), "Normalize(mean=[0.5], std=[0.25])"),
    (lambda: T.RandomErasing(), "RandomErasing(p=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3), "
     "value=0, inplace=False)"),
    (lambda: T.GaussianBlur(3), "GaussianBlur(kernel_size=(3, 3), sigma=(0.1, 2.0))"),
    (lambda: T.ConvertImageDtype(), "ConvertImageDtype()"),
    (lambda: T.LinearTransformation(facula.eye(1), facula.zeros(1)),
     "LinearTransformation(transformation_matrix=[[1.0]], mean_vector=[0.0])"),
    (lambda: T.RandomApply([T.CenterCrop(2)]), "RandomApply(\n    p=0.5\n    "
     "CenterCrop(size=(2, 2))\n)"),
]


def ids(entry):
    return entry[1].partition("(")[0]


@pytest.mark.parametrize("entry", REPRS, ids=ids)
def test_a_transform_is_a_module_without_state(entry):
    make, text = entry
    transform = make()
    assert isinstance(transform, nn.Module)
    assert not transform.state_dict() and not list(transform.parameters())
    assert repr(transform) == text
    assert repr(copy.deepcopy(transform)) == text
    assert repr(pickle.loads(pickle.dumps(transform))) == text
    assert transform.eval() is transform and not transform.training


@pytest.mark.parametrize("make", [
    lambda: T.Compose([]), T.ToTensor, T.PILToTensor, T.ToPILImage, lambda: T.Lambda(abs),
    lambda: T.RandomChoice([T.CenterCrop(2)]), lambda: T.RandomOrder([T.CenterCrop(2)])])
def test_plain_objects_as_in_torchvision(make):
    transform = make()
    assert not isinstance(transform, nn.Module)
    with pytest.raises(TypeError, match="Module"):
        nn.Sequential(transform)


def test_every_transform_is_in_one_of_the_two_lists():
    modules = {ids(entry) for entry in REPRS}
    plain = {"Compose", "ToTensor", "PILToTensor", "ToPILImage", "Lambda", "RandomChoice",
             "RandomOrder"}
    kinds = {name for name in T.__all__ if isinstance(getattr(T, name), type)}
    assert kinds - {"InterpolationMode", "Transform"} == modules | plain


def test_lists_as_text_and_what_they_refuse():
    one = T.CenterCrop(2)
    assert repr(T.RandomChoice([one])) == "RandomChoice(\n    CenterCrop(size=(2, 2))\n)(p=None)"
    assert repr(T.RandomOrder([one])) == "RandomOrder(\n    CenterCrop(size=(2, 2))\n)"
    with pytest.raises(TypeError, match="sequence"):
        T.RandomOrder(one)
    with pytest.raises(TypeError, match="sequence"):
        T.RandomChoice([one], p=1.0)
    with pytest.raises(ValueError, match="2 != 1"):
        T.RandomChoice([one], p=[1.0, 2.0])


def test_in_a_sequential():
    net = nn.Sequential(T.ColorJitter(0.5, 0.5, 0.5, 0.1), T.RandomHorizontalFlip(),
                        T.ConvertImageDtype(facula.float32), nn.Flatten(0))
    assert not net.state_dict()
    image = facula.tensor(np.random.RandomState(0).randint(0, 256, (3, 5, 4)).astype(np.uint8))
    facula.manual_seed(1)
    out = net(image)
    assert out.shape == (60,) and out.dtype == facula.float32
    facula.manual_seed(1)
    assert facula.equal(net(image), out)
    assert "(1): RandomHorizontalFlip(p=0.5)" in repr(net)


def test_a_module_list_is_a_child():
    inside = T.RandomApply(nn.ModuleList([T.CenterCrop(2)]), p=1.0)
    assert [name for name, _ in inside.named_modules()] == ["", "transforms", "transforms.0"]
    assert inside(facula.zeros(3, 4, 4)).shape == (3, 2, 2)


def data(transform):
    return FakeData(12, (3, 8, 8), 2, transform)


def batches(transform):
    facula.manual_seed(5)
    return [x.numpy() for x, _ in DataLoader(data(transform), 4)]


def steps():
    return [T.RandomCrop(8, 2), T.RandomHorizontalFlip()]


def test_batches_of_a_sequential_are_those_of_its_steps():
    plain = T.Compose([*steps(), T.ToTensor()])
    nested = T.Compose([nn.Sequential(*steps()), T.ToTensor()])
    single = T.Compose([*steps(), T.Lambda(lambda image: image), T.ToTensor()])
    assert pipeline(plain) and pipeline(nested) and not pipeline(single)
    for a, b, c in zip(batches(plain), batches(nested), batches(single), strict=True):
        assert (a == b).all() and (a == c).all()


def test_hooks_see_every_image():
    seen = []
    flip = T.RandomHorizontalFlip()
    transform = T.Compose([flip, T.ToTensor()])
    known = pipeline(transform)
    assert known.current(transform)
    handle = flip.register_forward_hook(lambda module, args, out: seen.append(out.size))
    assert pipeline(transform) is None and not known.current(transform)
    batches(transform)
    assert seen == [(8, 8)] * 12
    handle.remove()
    assert pipeline(transform) and known.current(transform)
    outer = nn.Sequential(flip)
    outer.register_forward_pre_hook(lambda module, args: None)
    assert pipeline(T.Compose([outer, T.ToTensor()])) is None
    flip.forward = lambda image: image
    assert pipeline(transform) is None


@pytest.mark.parametrize("name", ["float64", "float16", "bfloat16"])
def test_pixels_become_the_default_dtype(name):
    """As torchvision's do; 1/3 of the way between two float32 would be another number."""
    dtype = getattr(facula, name)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    transform = T.Compose([T.ToTensor(), T.Normalize([0.25], [0.5])])
    before = facula.get_default_dtype()
    facula.set_default_dtype(dtype)
    try:
        want = facula.tensor(pixels).to(dtype) / 255
        one = T.ToTensor()(pixels[0])
        assert one.dtype == dtype and facula.equal(one, want)
        all_at_once = pipeline(transform).run(pixels[None], None)
        assert all_at_once.dtype == dtype
        assert facula.equal(all_at_once[0], transform(pixels[0]))
        assert facula.equal(pipeline(T.Compose([T.ToTensor()])).run(pixels[None], None)[0], want)
    finally:
        facula.set_default_dtype(before)
