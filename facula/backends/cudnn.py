"""`torch.backends.cudnn`: NVIDIA's kernels, which are not used."""

from facula.absent import Absent

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False

_none = Absent(__name__, "facula generates its own machine code")

is_available = _none.answers("is_available", False)
version = _none.answers("version", None)
