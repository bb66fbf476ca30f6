"""Data sets of images, networks for them, and transforms of images."""

from facula.vision import datasets as datasets
from facula.vision import models as models
from facula.vision import ops as ops
from facula.vision import transforms as transforms
from facula.vision import utils as utils
