"""`torch.backends.cuda`: NVIDIA's GPUs, which are not used."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

matmul = SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=False,
                         allow_bf16_reduced_precision_reduction=False)
"""Flags; what is set here is kept and means nothing."""


@contextmanager
def sdp_kernel(enable_flash: bool = True, enable_math: bool = True,
               enable_mem_efficient: bool = True, enable_cudnn: bool = True) -> Iterator[None]:
    """A context without effect: attention has one kernel, facula's."""
    yield


def enable_flash_sdp(enabled: bool) -> None:
    """Without effect: attention has one kernel, facula's."""


enable_math_sdp = enable_mem_efficient_sdp = enable_cudnn_sdp = enable_flash_sdp


def flash_sdp_enabled() -> bool:
    """False: attention has one kernel, facula's."""
    return False


mem_efficient_sdp_enabled = cudnn_sdp_enabled = flash_sdp_enabled


def math_sdp_enabled() -> bool:
    """True: attention can be computed."""
    return True


def is_built() -> bool:
    """False: facula computes on the CPU."""
    return False
