"""Transforms of images, as objects; `facula.vision.transforms.functional` has them as functions."""

from facula.vision.transforms import compose, jitter, transforms
from facula.vision.transforms import functional as functional
from facula.vision.transforms.compose import *
from facula.vision.transforms.jitter import *
from facula.vision.transforms.transforms import *

__all__ = ["functional"]
__all__ += compose.__all__
__all__ += jitter.__all__
__all__ += transforms.__all__
