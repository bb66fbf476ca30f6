"""`torch.backends.cuda`: NVIDIA's GPUs, which are not used."""

from types import SimpleNamespace

matmul = SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=False,
                         allow_bf16_reduced_precision_reduction=False)
"""Flags; what is set here is kept and means nothing."""


def is_built() -> bool:
    """False: facula computes on the CPU."""
    return False
