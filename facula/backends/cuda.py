"""`torch.backends.cuda`: NVIDIA's GPUs, which are not used."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from facula.absent import Absent

matmul = SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=False,
                         allow_bf16_reduced_precision_reduction=False)
"""Flags; what is set here is kept and means nothing."""

_none = Absent(__name__, "facula computes on the CPU")

is_built = _none.answers("is_built", False)

enable_flash_sdp = _none.ignores("enable_flash_sdp")
enable_math_sdp = _none.ignores("enable_math_sdp")
enable_mem_efficient_sdp = _none.ignores("enable_mem_efficient_sdp")
enable_cudnn_sdp = _none.ignores("enable_cudnn_sdp")
flash_sdp_enabled = _none.answers("flash_sdp_enabled", False)
mem_efficient_sdp_enabled = _none.answers("mem_efficient_sdp_enabled", False)
cudnn_sdp_enabled = _none.answers("cudnn_sdp_enabled", False)


def math_sdp_enabled() -> bool:
    """True: attention can be computed."""
    return True


@contextmanager
def sdp_kernel(enable_flash: bool = True, enable_math: bool = True,
               enable_mem_efficient: bool = True, enable_cudnn: bool = True) -> Iterator[None]:
    """A context without effect: attention has one kernel, facula's."""
    yield
