"""Wrappers of PyTorch's that spread a module over devices, where there is one device."""

from facula.nn.parallel.data_parallel import DataParallel
from facula.nn.parallel.distributed import DistributedDataParallel

__all__ = ["DataParallel", "DistributedDataParallel"]
