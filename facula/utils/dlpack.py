"""`torch.utils.dlpack` under its name."""

from facula.ops.dlpack import from_dlpack, to_dlpack

__all__ = ["from_dlpack", "to_dlpack"]
