"""Networks for images against definitions in PyTorch's functions, on the same weights.

A definition reads weights by torchvision's key names, so that the names are held as well; how many
parameters a network has is what its authors and torchvision's documentation say.
"""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula.vision import models

torch = pytest.importorskip("torch")
F = torch.nn.functional

PARAMETERS = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032,
              "resnet101": 44_549_160, "mobilenet_v3_small": 2_542_856,
              "mobilenet_v3_large": 5_483_032, "inception_v3": 27_161_264,
              "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544,
              "vgg19": 143_667_240, "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736,
              "vgg16_bn": 138_365_992, "vgg19_bn": 143_678_248}


class Weights:
    """Functions of the weights under a name."""

    def __init__(self, state, eps=1e-5):
        self.state, self.eps, self.used = state, eps, set()

    def get(self, key):
        self.used.add(key)
        return self.state.get(key)

    def conv(self, x, name, stride=1, padding=0, groups=1):
        return F.conv2d(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"), stride, padding,
                        1, groups)

    def bn(self, x, name):
        mean, var, gain, shift = (self.get(f"{name}.{k}") for k in (
            "running_mean", "running_var", "weight", "bias"))
        self.used.add(f"{name}.num_batches_tracked")
        return F.batch_norm(x, mean, var, gain, shift, False, 0.0, self.eps)

    def linear(self, x, name):
        return F.linear(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"))


def resnet(p, x, deep, layers):
    x = F.max_pool2d(F.relu(p.bn(p.conv(x, "conv1", 2, 3), "bn1")), 3, 2, 1)
    for stage, count in enumerate(layers, 1):
        for k in range(count):
            name, stride = f"layer{stage}.{k}", 2 if stage > 1 and k == 0 else 1
            if deep:
                y = F.relu(p.bn(p.conv(x, f"{name}.conv1"), f"{name}.bn1"))
                y = F.relu(p.bn(p.conv(y, f"{name}.conv2", stride, 1), f"{name}.bn2"))
                y = p.bn(p.conv(y, f"{name}.conv3"), f"{name}.bn3")
            else:
                y = F.relu(p.bn(p.conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1"))
                y = p.bn(p.conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
            if y.shape != x.shape:
                x = p.bn(p.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    return p.linear(x.mean((2, 3)), "fc")


def vgg(p, x, counts, norm):
    at = 0
    for count in counts:
        for _ in range(count):
            x = p.conv(x, f"features.{at}", 1, 1)
            if norm:
                x = p.bn(x, f"features.{at + 1}")
            x = F.relu(x)
            at += 3 if norm else 2
        x, at = F.max_pool2d(x, 2), at + 1
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    for k in (0, 3):
        x = F.relu(p.linear(x, f"classifier.{k}"))
    return p.linear(x, "classifier.6")


def mobilenet(p, x, rows):
    p.eps = 1e-3
    x = F.hardswish(p.bn(p.conv(x, "features.0.0", 2, 1), "features.0.1"))
    for k, (kernel, se, hard, stride) in enumerate(rows, 1):
        act = F.hardswish if hard else F.relu
        y, at = x, 0

        def name():
            return f"features.{k}.block.{at}"
        if k > 1:                       # the first block widens nothing
            y, at = act(p.bn(p.conv(y, f"{name()}.0"), f"{name()}.1")), 1
        y = act(p.bn(p.conv(y, f"{name()}.0", stride, kernel // 2, y.shape[1]), f"{name()}.1"))
        at += 1
        if se:
            s = F.relu(p.conv(y.mean((2, 3), keepdim=True), f"{name()}.fc1"))
            y, at = F.hardsigmoid(p.conv(s, f"{name()}.fc2")) * y, at + 1
        y = p.bn(p.conv(y, f"{name()}.0"), f"{name()}.1")
        x = x + y if y.shape == x.shape and stride == 1 else y
    last = f"features.{len(rows) + 1}"
    x = F.hardswish(p.bn(p.conv(x, f"{last}.0"), f"{last}.1"))
    return p.linear(F.hardswish(p.linear(x.mean((2, 3)), "classifier.0")), "classifier.3")


LARGE = [(3, 0, 0, 1), (3, 0, 0, 2), (3, 0, 0, 1), (5, 1, 0, 2), (5, 1, 0, 1), (5, 1, 0, 1),
         (3, 0, 1, 2), (3, 0, 1, 1), (3, 0, 1, 1), (3, 0, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1),
         (5, 1, 1, 2), (5, 1, 1, 1), (5, 1, 1, 1)]
SMALL = [(3, 1, 0, 2), (3, 0, 0, 2), (3, 0, 0, 1), (5, 1, 1, 2), *[(5, 1, 1, 1)] * 4,
         (5, 1, 1, 2), (5, 1, 1, 1), (5, 1, 1, 1)]


def inception(p, x):
    p.eps = 1e-3

    def c(x, name, stride=1, padding=0):
        return F.relu(p.bn(p.conv(x, f"{name}.conv", stride, padding), f"{name}.bn"))

    def line(x, name, *layers):
        for suffix, *how in layers:
            x = c(x, f"{name}.branch{suffix}", *how)
        return x

    def mean(x):
        return F.avg_pool2d(x, 3, 1, 1)

    def join(*parts):
        return torch.cat(parts, 1)

    across, down = (1, (0, 3)), (1, (3, 0))
    x = c(c(c(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3"), "Conv2d_2b_3x3", 1, 1)
    x = c(c(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
    x = F.max_pool2d(x, 3, 2)
    for m in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = join(line(x, m, ("1x1",)), line(x, m, ("5x5_1",), ("5x5_2", 1, 2)),
                 line(x, m, ("3x3dbl_1",), ("3x3dbl_2", 1, 1), ("3x3dbl_3", 1, 1)),
                 line(mean(x), m, ("_pool",)))
    m = "Mixed_6a"
    x = join(line(x, m, ("3x3", 2)),
             line(x, m, ("3x3dbl_1",), ("3x3dbl_2", 1, 1), ("3x3dbl_3", 2)),
             F.max_pool2d(x, 3, 2))
    for m in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = join(line(x, m, ("1x1",)),
                 line(x, m, ("7x7_1",), ("7x7_2", *across), ("7x7_3", *down)),
                 line(x, m, ("7x7dbl_1",), ("7x7dbl_2", *down), ("7x7dbl_3", *across),
                      ("7x7dbl_4", *down), ("7x7dbl_5", *across)),
                 line(mean(x), m, ("_pool",)))
    m = "Mixed_7a"
    x = join(line(x, m, ("3x3_1",), ("3x3_2", 2)),
             line(x, m, ("7x7x3_1",), ("7x7x3_2", *across), ("7x7x3_3", *down), ("7x7x3_4", 2)),
             F.max_pool2d(x, 3, 2))
    for m in ("Mixed_7b", "Mixed_7c"):
        a, b = line(x, m, ("3x3_1",)), line(x, m, ("3x3dbl_1",), ("3x3dbl_2", 1, 1))
        x = join(line(x, m, ("1x1",)), line(a, m, ("3x3_2a", 1, (0, 1))),
                 line(a, m, ("3x3_2b", 1, (1, 0))), line(b, m, ("3x3dbl_3a", 1, (0, 1))),
                 line(b, m, ("3x3dbl_3b", 1, (1, 0))), line(mean(x), m, ("_pool",)))
    return p.linear(x.mean((2, 3)), "fc")


FORWARD = {
    "resnet18": lambda p, x: resnet(p, x, False, (2, 2, 2, 2)),
    "resnet34": lambda p, x: resnet(p, x, False, (3, 4, 6, 3)),
    "resnet50": lambda p, x: resnet(p, x, True, (3, 4, 6, 3)),
    "resnet101": lambda p, x: resnet(p, x, True, (3, 4, 23, 3)),
    "mobilenet_v3_small": lambda p, x: mobilenet(p, x, SMALL),
    "mobilenet_v3_large": lambda p, x: mobilenet(p, x, LARGE),
    "inception_v3": inception,
    **{f"vgg{depth}{bn}": (lambda p, x, n=counts, b=bn: vgg(p, x, n, bool(b)))
       for depth, counts in {11: (1, 1, 2, 2, 2), 13: (2,) * 5, 16: (2, 2, 3, 3, 3),
                             19: (2, 2, 4, 4, 4)}.items() for bn in ("", "_bn")}}
SIZES = {"inception_v3": 95}
FAST = ("resnet18", "mobilenet_v3_small")


@pytest.fixture
def undrawn(monkeypatch):
    """Networks are made without drawing the weights that a test replaces."""
    for name in ("uniform_", "normal_"):
        monkeypatch.setattr(facula.Tensor, name, lambda self, *_, **__: self)


def state_of(net, seed=0):
    """Random weights and statistics by the network's keys, of which it keeps a copy."""
    rng = np.random.default_rng(seed)
    out = {}
    for key, value in net.state_dict().items():
        shape = tuple(value.shape)
        if key.endswith("tracked"):
            out[key] = np.zeros(shape, np.int64)
        elif len(shape) > 1:
            out[key] = rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[1:])) ** 0.5
        elif key.endswith(("weight", "var")):
            out[key] = rng.uniform(0.5, 1.2, shape).astype(np.float32)
        else:
            out[key] = 0.1 * rng.standard_normal(shape, np.float32)
        out[key] = np.asarray(out[key], out[key].dtype)
    net.load_state_dict({k: facula.tensor(v) for k, v in out.items()})
    return out


def made(name):
    return getattr(models, name)(**({"init_weights": False} if name[:3] in ("vgg", "inc") else {}))


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow)
                                  for n in FORWARD])
def test_scores_are_those_of_the_definition(name, undrawn):
    net = made(name).eval()
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
    state = state_of(net)
    size = SIZES.get(name, 64)
    x = np.random.default_rng(1).standard_normal((2, 3, size, size)).astype(np.float32)
    p = Weights({k: torch.from_numpy(v).double() for k, v in state.items()})
    want = FORWARD[name](p, torch.from_numpy(x).double()).numpy()
    left = {k for k in state if not k.startswith("AuxLogits")} - p.used
    assert not left, f"the definition reads other keys: {sorted(left)[:5]}"
    images = facula.tensor(x)
    with facula.no_grad():
        for _ in range(2):
            have = net(images).numpy()
    assert np.linalg.norm(have - want) / np.linalg.norm(want) < 1e-5


def test_a_training_step_moves_all_weights():
    net = models.resnet18(num_classes=5)
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    loss = net(facula.randn(2, 3, 33, 33)).square().mean()
    loss.backward()
    facula.optim.SGD(net.parameters(), 0.1).step()
    same = [k for k, v in net.state_dict().items()
            if np.array_equal(v.numpy(), before[k]) and not k.endswith("bias")]
    assert not same


def test_inception_in_training_has_two_results(undrawn):
    net = models.inception_v3(num_classes=3, init_weights=False)
    out = net.train()(facula.zeros(2, 3, 299, 299))     # recorded, and never computed
    assert isinstance(out, models.InceptionOutputs)
    assert out.logits.shape == out.aux_logits.shape == (2, 3)
    bare = models.inception_v3(num_classes=3, aux_logits=False, init_weights=False)
    assert not any(k.startswith("AuxLogits") for k in bare.state_dict())


def test_settings(undrawn):
    assert models.mobilenet_v3_small(num_classes=4, width_mult=0.5).classifier[3].out_features == 4
    assert models.mobilenet_v3_large(reduced_tail=True, dilated=True).features[-1][0].in_channels \
        == 80
    wide = models.resnet50(width_per_group=32, groups=2,
                           replace_stride_with_dilation=[False, True, True]).eval()
    assert wide.layer4[1].conv2.dilation == (4, 4) and wide.layer1[0].conv1.out_channels == 64
    net = models.resnet18(zero_init_residual=True)
    assert not net.layer1[0].bn2.weight.detach().numpy().any()


def test_what_is_refused():
    with pytest.raises(ValueError, match="weights='DEFAULT'"):
        models.resnet18(weights="DEFAULT")
    with pytest.raises(ValueError, match="pretrained=True"):
        models.resnet18(pretrained=True)
    with pytest.raises(ValueError, match="3-element"):
        models.resnet18(replace_stride_with_dilation=[True])
    with pytest.raises(ValueError, match="groups=2"):
        models.resnet18(groups=2)
    with pytest.raises(NotImplementedError, match="dilation"):
        models.BasicBlock(64, 64, dilation=2)
    with pytest.raises(ValueError, match="'large' or 'small'"):
        models.MobileNetV3("middle")
    with pytest.raises(TypeError):
        models.vgg11(True)
