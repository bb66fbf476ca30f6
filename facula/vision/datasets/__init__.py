"""Data sets of images."""

from facula.vision.datasets.fake import FakeData
from facula.vision.datasets.folder import DatasetFolder, ImageFolder
from facula.vision.datasets.mnist import MNIST
from facula.vision.datasets.vision import StandardTransform, VisionDataset

__all__ = ["DatasetFolder", "FakeData", "ImageFolder", "MNIST",
           "StandardTransform", "VisionDataset"]
