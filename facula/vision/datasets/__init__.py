"""Data sets of images."""

from facula.vision.datasets.cifar import CIFAR10, CIFAR100
from facula.vision.datasets.fake import FakeData
from facula.vision.datasets.folder import DatasetFolder, ImageFolder
from facula.vision.datasets.mnist import KMNIST, MNIST, FashionMNIST
from facula.vision.datasets.vision import StandardTransform, VisionDataset

__all__ = ["CIFAR10", "CIFAR100", "DatasetFolder", "FakeData", "FashionMNIST", "ImageFolder",
           "KMNIST", "MNIST", "StandardTransform", "VisionDataset"]
