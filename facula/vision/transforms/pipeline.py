"""A transform for whole batches: what `Compose([...])` does to uint8 images, all at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from facula import nn
from facula.data.arrays import new_tensor, to_tensor
from facula.data.fetch import declares
from facula.data.rng import BatchStream
from facula.nn.modules.hooks import GLOBAL
from facula.ops.promote import get_default_dtype
from facula.vision.transforms import transforms as T
from facula.vision.transforms.functional import unit

__all__ = ["Pipeline", "pipeline"]

_SINGLE = ("__call__", "forward")
_BUILT_IN = (T.ToTensor, T.PILToTensor, T.ConvertImageDtype, T.Normalize, T.Pad, T.CenterCrop,
             T.Resize, T.Grayscale)
"""Transforms that draw no random numbers."""


class Pipeline:
    """`run` takes uint8 images [B, C, H, W] to a tensor; `random` says if it draws numbers.

    `front` are the steps up to the one that makes floats of bytes; from there on everything
    happens in the memory of the tensor that is returned, as far as the steps allow.
    """

    def __init__(self, steps: list[Any], source: Any):
        self.steps = steps
        self.source = source
        self.signature = _signature(source)
        self.random = any(type(s) not in _BUILT_IN for s in steps)
        at = next((k for k, s in enumerate(steps) if type(s) is T.ToTensor), len(steps))
        self.front, self.rest = steps[:at], steps[at + 1:]
        self.floats = at < len(steps)
        self.inplace = self.floats and all(type(s) is T.Normalize for s in self.rest)

    def current(self, transform: Any) -> bool:
        """Whether `transform` is still what this pipeline was made of."""
        return transform is self.source and _signature(transform) == self.signature

    def run(self, images: np.ndarray, rng: BatchStream | None) -> Any:
        """The tensor that stacking the transformed images would give."""
        numbers: Any = rng
        for step in self.front:
            images = step.batch(images, numbers)
        if not self.inplace or images.dtype != np.uint8:
            if self.floats:
                images = self.steps[len(self.front)].batch(images, numbers)
            for step in self.rest:
                images = step.batch(images, numbers)
            return to_tensor(images)
        out, memory = new_tensor(images.shape, get_default_dtype())
        unit(images, memory)
        for step in self.rest:
            step.into(memory, memory)
        return out


def pipeline(transform: Any) -> Pipeline | None:
    """The form for batches of a transform of images, or None where there is none.

    It has one if every part has a `batch` that speaks for its calls, and it ends in a tensor.
    """
    steps: list[Any] = []
    stage = _collect(transform, "image", steps)
    return Pipeline(steps, transform) if stage == "tensor" else None


def _collect(transform: Any, stage: str, steps: list[Any]) -> str | None:
    """Append the steps of `transform`; returns what comes out, or None if it cannot be done."""
    kind = type(transform)
    if isinstance(transform, nn.Module) and _watched(transform):
        return None
    if kind is T.Compose or kind is nn.Sequential:
        for t in transform.transforms if kind is T.Compose else transform:
            after = _collect(t, stage, steps)
            if after is None:
                return None
            stage = after
        return stage
    if kind is T.RandomApply:
        inner: list[Any] = []
        for t in transform.transforms:
            if not isinstance(t, T._KEEPING) or _collect(t, stage, inner) != stage:
                return None
        steps.append(T._Chosen(transform.p, inner))
        return stage
    if not declares(kind, "batch", _SINGLE) or not getattr(transform, "whole", True):
        return None
    if getattr(transform, "needs", None) not in (None, stage):
        return None
    steps.append(transform)
    return getattr(transform, "gives", None) or stage


def _signature(transform: Any) -> Any:
    """Which objects a transform is made of: changes when its lists do."""
    if isinstance(transform, nn.Module) and _watched(transform):
        return None
    parts = (transform if type(transform) is nn.Sequential
             else getattr(transform, "transforms", None))
    return id(transform) if parts is None else tuple([_signature(t) for t in parts])


def _watched(module: nn.Module) -> bool:
    """Whether a call of this module is more than its class's `forward`: hooks, or one replaced."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks or GLOBAL.forward or GLOBAL.forward_pre
                or GLOBAL.backward or GLOBAL.backward_pre or "forward" in vars(module))
