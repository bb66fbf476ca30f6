"""Boxes, the focal loss and the layers of `facula.vision.ops`, against their definitions."""

import math

import numpy as np
import pytest

import facula
from facula import nn
from facula.testing import assert_close
from facula.vision import ops

A = [[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 15.0, 20.0], [20.0, 20.0, 30.0, 25.0]]
B = [[0.0, 0.0, 10.0, 10.0], [2.0, 1.0, 9.0, 12.0]]


def by_hand(a, b):
    """IoU, area of the box around both, area covered."""
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return w * h / union, hull, union


@pytest.mark.parametrize("dtype", [facula.float32, facula.float64, facula.int64, facula.float16])
def test_overlap(dtype):
    a, b = facula.tensor(A).to(dtype), facula.tensor(B).to(dtype)
    want = [[by_hand(x, y)[0] for y in B] for x in A]
    np.testing.assert_allclose(ops.box_iou(a, b).numpy(), want, rtol=1e-3)
    assert ops.box_area(a).tolist() == [100, 150, 50]
    assert ops.box_iou(a[:0], b).shape == (0, 2)


def test_overlap_and_what_is_around():
    a, b = facula.tensor(A), facula.tensor(B)
    found = ops.generalized_box_iou(a, b).numpy()
    apart = ops.distance_box_iou(a, b).numpy()
    whole = ops.complete_box_iou(a, b).numpy()
    for i, x in enumerate(A):
        for j, y in enumerate(B):
            iou, hull, union = by_hand(x, y)
            assert found[i, j] == pytest.approx(iou - (hull - union) / hull, abs=1e-6)
            centre = [(x[k] + x[k + 2] - y[k] - y[k + 2]) / 2 for k in (0, 1)]
            sides = [max(x[k + 2], y[k + 2]) - min(x[k], y[k]) for k in (0, 1)]
            want = iou - (centre[0] ** 2 + centre[1] ** 2) / (sides[0] ** 2 + sides[1] ** 2)
            assert apart[i, j] == pytest.approx(want, abs=1e-6)
            v = 4 / math.pi ** 2 * (math.atan((x[2] - x[0]) / (x[3] - x[1]))
                                    - math.atan((y[2] - y[0]) / (y[3] - y[1]))) ** 2
            assert whole[i, j] == pytest.approx(want - v * v / (1 - iou + v + 1e-7), abs=1e-6)


def test_forms_of_boxes():
    a = facula.tensor(A)
    assert ops.box_convert(a, "xyxy", "xywh")[1].tolist() == [5, 5, 10, 15]
    assert ops.box_convert(a, "xyxy", "cxcywh")[1].tolist() == [10, 12.5, 10, 15]
    for form in ("xyxy", "xywh", "cxcywh"):
        for other in ("xyxy", "xywh", "cxcywh"):
            there = ops.box_convert(ops.box_convert(a, "xyxy", form), form, other)
            assert_close(ops.box_convert(there, other, "xyxy"), a)
    with pytest.raises(ValueError, match="xyzw"):
        ops.box_convert(a, "xyxy", "xyzw")
    assert ops.clip_boxes_to_image(a, (12, 8)).tolist() == [[0, 0, 8, 10], [5, 5, 8, 12],
                                                            [8, 12, 8, 12]]
    assert ops.remove_small_boxes(a, 6).tolist() == [0, 1]
    masks = facula.zeros(1, 5, 6)
    masks[0, 1:3, 2:5] = 1
    assert ops.masks_to_boxes(masks).tolist() == [[2, 1, 4, 2]]


def test_suppression():
    boxes = facula.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 9]])
    scores = facula.tensor([0.5, 0.9, 0.1, 0.6])
    assert ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert ops.nms(boxes, scores, 0.65).tolist() == [1, 3, 2]
    assert ops.nms(boxes, scores, 0.95).tolist() == [1, 3, 0, 2]
    assert ops.nms(boxes[:0], scores[:0], 0.5).tolist() == []
    classes = facula.tensor([0, 1, 0, 0])
    assert ops.batched_nms(boxes, scores, classes, 0.5).tolist() == [1, 3, 2]
    assert ops.batched_nms(boxes, scores, facula.arange(4), 0.5).tolist() == [1, 3, 0, 2]
    with pytest.raises(ValueError, match=r"\[N, 4\]"):
        ops.nms(boxes[0], scores, 0.5)
    with pytest.raises(ValueError, match="one for each box"):
        ops.nms(boxes, scores[:2], 0.5)


def test_focal_loss():
    x, y = facula.tensor([2.0, -1.0, 0.0]), facula.tensor([1.0, 0.0, 0.0])
    p = 1 / (1 + np.exp(-x.numpy()))
    right = np.where(y.numpy() == 1, p, 1 - p)
    want = -np.log(right) * (1 - right) ** 2
    assert_close(ops.sigmoid_focal_loss(x, y, alpha=-1), facula.tensor(want))
    weight = np.where(y.numpy() == 1, 0.25, 0.75)
    assert ops.sigmoid_focal_loss(x, y, reduction="sum").item() == \
        pytest.approx(float((weight * want).sum()), rel=1e-5)
    assert ops.sigmoid_focal_loss(x, y, reduction="mean").item() == \
        pytest.approx(float((weight * want).mean()), rel=1e-5)
    with pytest.raises(ValueError, match="reduction"):
        ops.sigmoid_focal_loss(x, y, reduction="no")
    with pytest.raises(ValueError, match="alpha"):
        ops.sigmoid_focal_loss(x, y, alpha=2)


def test_frozen_norm_is_a_norm_in_evaluation():
    norm = nn.BatchNorm2d(3).eval()
    with facula.no_grad():
        for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            t.copy_(facula.rand(3) + 0.5)
    frozen = ops.FrozenBatchNorm2d(3)
    frozen.load_state_dict(norm.state_dict())
    x = facula.randn(2, 3, 4, 4)
    assert_close(frozen(x), norm(x))
    assert not list(frozen.parameters()) and repr(frozen) == "FrozenBatchNorm2d(3, eps=1e-05)"


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth(mode):
    layer = ops.StochasticDepth(0.5, mode)
    x = facula.ones(64, 2, 3)
    assert layer.eval()(x) is x
    out = layer.train()(x).numpy()
    assert set(np.unique(out)) <= {0.0, 2.0}
    rows = out.reshape(64, -1)
    assert (rows == rows[:, :1]).all()
    if mode == "batch":
        assert len(np.unique(out)) == 1
    assert ops.stochastic_depth(x, 1.0, mode).abs().sum().item() == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        ops.stochastic_depth(x, 1.5, mode)
    with pytest.raises(ValueError, match="pixel"):
        ops.stochastic_depth(x, 0.5, "pixel")


def test_layers():
    x = facula.randn(2, 3, 8, 8)
    assert ops.Conv2dNormActivation(3, 5)(x).shape == (2, 5, 8, 8)
    plain = ops.Conv2dNormActivation(3, 5, (3, 5), norm_layer=None, activation_layer=None)
    assert plain(x).shape == (2, 5, 8, 8) and plain[0].bias is not None and len(plain) == 1
    assert ops.Conv3dNormActivation(3, 4, dilation=2)(x[:, :, None]).shape == (2, 4, 1, 8, 8)
    assert ops.SqueezeExcitation(3, 2)(x).shape == x.shape
    mlp = ops.MLP(4, [5, 6], dropout=0.1)
    assert [type(m).__name__ for m in mlp] == ["Linear", "ReLU", "Dropout", "Linear", "Dropout"]
    assert ops.Permute([0, 2, 3, 1])(x).shape == (2, 8, 8, 3)
