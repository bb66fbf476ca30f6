"""Data sets of images, and transforms of images."""

from facula.vision import datasets as datasets
from facula.vision import transforms as transforms
