"""`torch.backends.cuda`: NVIDIA's GPUs, which are not used."""

from types import SimpleNamespace

from facula.absent import Absent

matmul = SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=False,
                         allow_bf16_reduced_precision_reduction=False)
"""Flags; what is set here is kept and means nothing."""

_none = Absent(__name__, "facula computes on the CPU")

is_built = _none.answers("is_built", False)
