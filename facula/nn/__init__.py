"""Neural networks: modules, their parameters, losses and starting values, under PyTorch's names."""

from facula.nn import attention, functional, grad, init, parallel, utils
from facula.nn.modules import *
from facula.nn.modules import Module
from facula.nn.parallel import DataParallel
from facula.nn.parameter import (
    Buffer,
    Parameter,
    UninitializedBuffer,
    UninitializedParameter,
)
