"""`DistributedSampler`, where PyTorch's programs look for it."""

from facula.data.sampler import DistributedSampler

__all__ = ["DistributedSampler"]
