"""`torch.backends.mps`: Apple's GPU, which is not used."""

from facula.absent import Absent

_none = Absent(__name__, "facula generates its own machine code")

is_available = _none.answers("is_available", False)
is_built = _none.answers("is_built", False)
