"""These layers under the module name that PyTorch's programs import them from."""

from facula.nn.modules.batchnorm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]
