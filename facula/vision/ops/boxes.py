"""Boxes as rows `(x1, y1, x2, y2)` of a tensor `[N, 4]`, 0 <= x1 < x2 and 0 <= y1 < y2."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facula.dtype import int64
from facula.errors import ShapeError
from facula.ops.creation import zeros
from facula.ops.from_data import from_numpy, tensor
from facula.ops.shape import cat, stack
from facula.tensor import Tensor

__all__ = ["batched_nms", "box_area", "box_convert", "box_iou", "clip_boxes_to_image",
           "complete_box_iou", "distance_box_iou", "generalized_box_iou", "masks_to_boxes", "nms",
           "remove_small_boxes"]


def _wide(t: Tensor) -> Tensor:
    """In a dtype that areas fit into."""
    if t.dtype.kind == "f":
        return t.float() if t.dtype.itemsize < 4 else t          # type: ignore
    return t.long() if t.dtype.itemsize < 8 else t               # type: ignore


def box_area(boxes: Tensor) -> Tensor:
    """`[N]`: the areas of boxes `[N, 4]`."""
    b = _wide(boxes)
    return (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    low = a[..., :, None, :2].maximum(b[..., None, :, :2])      # type: ignore
    high = a[..., :, None, 2:].minimum(b[..., None, :, 2:])     # type: ignore
    side = _wide(high - low).clamp(min=0)                               # type: ignore
    inter = side[..., 0] * side[..., 1]
    return inter, box_area(a)[..., :, None] + box_area(b)[..., None, :] - inter


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """`[N, M]`: the area that two boxes share over the area that they cover together."""
    inter, union = _overlap(boxes1, boxes2)
    return inter / union


def _around(a: Tensor, b: Tensor) -> Tensor:
    """`[N, M, 2]`: width and height of the smallest box around two."""
    low = a[:, None, :2].minimum(b[:, :2])                      # type: ignore
    high = a[:, None, 2:].maximum(b[:, 2:])                     # type: ignore
    return _wide(high - low).clamp(min=0)                               # type: ignore


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """`[N, M]`: `box_iou` less the share of the smallest box around both that neither covers
    (Rezatofighi et al. 2019)."""
    inter, union = _overlap(boxes1, boxes2)
    side = _around(boxes1, boxes2)
    hull = side[..., 0] * side[..., 1]
    return inter / union - (hull - union) / hull


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """`[N, M]`: `box_iou` less the squared distance of the centres over the squared diagonal of
    the smallest box around both (Zheng et al. 2020)."""
    inter, union = _overlap(boxes1, boxes2)
    diagonal = (_around(boxes1, boxes2) ** 2).sum(-1) + eps             # type: ignore
    apart = ((boxes1[:, None, :2] + boxes1[:, None, 2:]) - (boxes2[:, :2] + boxes2[:, 2:])) / 2
    return inter / union - (_wide(apart) ** 2).sum(-1) / diagonal       # type: ignore


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """`[N, M]`: `distance_box_iou` less a term for boxes of another aspect (Zheng et al. 2020)."""
    iou = box_iou(boxes1, boxes2)
    angles = [((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1])).atan()    # type: ignore
              for b in (boxes1, boxes2)]
    v = 4 / math.pi ** 2 * (angles[0][:, None] - angles[1]) ** 2
    weight = (v / (1 - iou + v + eps)).detach()
    return distance_box_iou(boxes1, boxes2, eps) - weight * v


def clip_boxes_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes cut to an image of `size` (height, width)."""
    x, y = boxes[..., 0::2].clamp(0, size[1]), boxes[..., 1::2].clamp(0, size[0])  # type: ignore
    return stack((x, y), boxes.ndim).reshape(boxes.shape)        # type: ignore


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """The indices of boxes of which no side is shorter than `min_size`."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides >= min_size).all(1).nonzero()[:, 0]                   # type: ignore


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """From one form to another: 'xyxy', 'xywh' (a corner and the sides) or 'cxcywh' (the centre
    and the sides).  ValueError for any other."""
    allowed = ("xyxy", "xywh", "cxcywh")
    if in_fmt not in allowed or out_fmt not in allowed:
        raise ValueError(f"Unsupported Bounding Box Conversions for given in_fmt {in_fmt} and "
                         f"out_fmt {out_fmt}: choose from {', '.join(allowed)}")
    if in_fmt == out_fmt:
        return boxes.clone()                                            # type: ignore
    a, b = boxes[..., :2], boxes[..., 2:]
    if in_fmt == "xywh":
        low, high = a, a + b
    elif in_fmt == "cxcywh":
        low, high = a - 0.5 * b, a + 0.5 * b
    else:
        low, high = a, b
    parts = {"xyxy": (low, high), "xywh": (low, high - low),
             "cxcywh": ((low + high) / 2, high - low)}[out_fmt]
    return cat(parts, -1)                                        # type: ignore


def masks_to_boxes(masks: Tensor) -> Tensor:
    """`[N, 4]`: the boxes around what is not 0 in masks `[N, H, W]`; float32."""
    out = np.zeros((masks.shape[0], 4), np.float32)
    for box, mask in zip(out, np.asarray(masks.detach().numpy())):      # type: ignore
        y, x = np.nonzero(mask)
        box[:] = x.min(), y.min(), x.max(), y.max()
    return from_numpy(out)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The indices of the boxes that are kept, by falling score.

    A box goes if one that is kept has a higher score and an IoU with it above the threshold.
    ShapeError unless boxes are `[N, 4]` and scores `[N]`.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"nms: boxes should be a 2d tensor [N, 4], not {tuple(boxes.shape)}")
    if tuple(scores.shape) != (boxes.shape[0],):
        raise ShapeError(f"nms: scores should be [{boxes.shape[0]}], one for each box, not "
                         f"{tuple(scores.shape)}")
    b = _wide(boxes).detach().numpy()                                   # type: ignore
    area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    order = np.argsort(-_wide(scores).detach().numpy(), kind="stable")  # type: ignore
    gone = np.zeros(len(b), bool)
    kept = []
    for at, i in enumerate(order):
        if gone[i]:
            continue
        kept.append(i)
        rest = order[at + 1:]
        side = np.clip(np.minimum(b[i, 2:], b[rest, 2:]) - np.maximum(b[i, :2], b[rest, :2]),
                       0, None)
        inter = side[:, 0] * side[:, 1]
        with np.errstate(all="ignore"):
            gone[rest] |= inter / (area[i] + area[rest] - inter) > iou_threshold
    return tensor(np.array(kept, np.int64))


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Any, iou_threshold: float) -> Tensor:
    """`nms` among the boxes of each class `idxs`; the indices by falling score."""
    if not boxes.numel():
        return zeros(0, dtype=int64)
    # Classes are moved so far apart that no two of their boxes meet.
    far = idxs.to(boxes) * (boxes.max() + 1)                            # type: ignore
    return nms(boxes + far[:, None], scores, iou_threshold)
