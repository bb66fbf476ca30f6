"""Networks by name, and what stands for weights that are not here."""

import copy
import pickle

import numpy as np
import pytest
from PIL import Image

import facula
from facula import nn
from facula.errors import WeightsError
from facula.vision import models

NAMES = ["inception_v3", "mobilenet_v3_large", "mobilenet_v3_small", "resnet101", "resnet18",
         "resnet34", "resnet50", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn",
         "vgg19", "vgg19_bn"]


def test_names():
    assert models.list_models() == models.list_models(models) == NAMES
    assert models.list_models(nn) == []
    assert models.list_models(include="resnet?8") == ["resnet18"]
    assert models.list_models(include=iter(["vgg*", "res*"]), exclude=["*_bn", "*1*"]) == [
        "resnet34", "resnet50"]
    assert models.get_model_builder("ResNet18") is models.resnet18
    assert models.get_model("resnet18", weights=None, num_classes=3).fc.out_features == 3
    for get in (models.get_model, models.get_model_builder, models.get_model_weights):
        with pytest.raises(ValueError, match=r"Unknown model resnet19.*resnet18"):
            get("resnet19")


@pytest.mark.parametrize("name", NAMES)
def test_facts(name):
    kind = models.get_model_weights(name)
    assert models.get_model_weights(getattr(models, name)) is kind
    assert getattr(models, kind.__name__) is kind and kind.__name__.lower() == f"{name}_weights"
    plain = {"init_weights": False} if name[:3] in ("vgg", "inc") else {}
    count = sum(p.numel() for p in getattr(models, name)(**plain).parameters())
    for entry in kind:
        assert entry.meta["num_params"] == count and entry.meta["num_classes"] == 1000
        assert models.get_weight(str(entry)) is entry is kind.verify(entry.name)
    assert kind.DEFAULT is list(kind)[-1]


def test_entries():
    kind = models.ResNet50_Weights
    assert [e.name for e in kind] == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    for entry in kind:
        assert pickle.loads(pickle.dumps(entry)) is copy.deepcopy(entry) is entry
        assert repr(entry) == f"ResNet50_Weights.{entry.name}"
    assert kind.verify(None) is None
    with pytest.raises(TypeError, match="expected ResNet50_Weights but received ResNet18_Weights"):
        kind.verify(models.ResNet18_Weights.DEFAULT)
    with pytest.raises(KeyError, match=r"V3.*IMAGENET1K_V2"):
        models.get_weight("ResNet50_Weights.IMAGENET1K_V3")
    for name in ("ResNet50_Weights", "a.b.c"):
        with pytest.raises(ValueError, match="Invalid weight name"):
            models.get_weight(name)
    with pytest.raises(ValueError, match="does not exist"):
        models.get_weight("ResNet51_Weights.DEFAULT")
    with pytest.raises(ValueError, match="makes none of the networks"):
        models.get_model_weights(nn.Linear)


@pytest.mark.parametrize("weights", [
    "DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT", models.ResNet18_Weights.DEFAULT])
def test_asking_for_weights_says_how_to_load_them(weights):
    with pytest.raises(WeightsError, match=r"resnet18\(\).*load_state_dict\(facula.load"):
        models.resnet18(weights=weights)
    with pytest.raises(WeightsError, match="load_state_dict"):
        models.get_model("resnet18", weights=weights)


def test_weights_that_nobody_has():
    with pytest.raises(KeyError, match=r"V9.*IMAGENET1K_V1"):
        models.resnet18(weights="IMAGENET1K_V9")
    with pytest.raises(TypeError, match="ResNet18_Weights"):
        models.resnet18(weights=models.ResNet34_Weights.DEFAULT)
    with pytest.raises(WeightsError, match=r"vgg11\(\)"):
        models.VGG11_Weights.DEFAULT.get_state_dict(progress=True)


def test_the_transform():
    transform = models.ResNet18_Weights.DEFAULT.transforms()
    assert isinstance(transform, nn.Module)
    assert transform.crop_size == [224] and transform.resize_size == [256]
    assert models.Inception_V3_Weights.DEFAULT.transforms().crop_size == [299]
    assert models.ResNet18_Weights.DEFAULT.transforms(crop_size=32).crop_size == [32]
    pixels = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)
    small = models.ResNet18_Weights.DEFAULT.transforms(crop_size=16, resize_size=20)
    out = small(Image.fromarray(pixels))
    middle = np.asarray(Image.fromarray(pixels).resize((25, 20), Image.BILINEAR), np.float32)
    middle = middle[2:18, 4:20] / 255
    middle = (middle - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert out.dtype == facula.float32
    np.testing.assert_allclose(out.numpy(), middle.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)
    batch = facula.tensor(pixels.transpose(2, 0, 1)[None])
    assert small(batch).shape == (1, 3, 16, 16)
    assert repr(small) == ("ImageClassification(\n    crop_size=[16]\n    resize_size=[20]\n    "
                           "mean=[0.485, 0.456, 0.406]\n    std=[0.229, 0.224, 0.225]\n    "
                           "interpolation=InterpolationMode.BILINEAR\n)")
