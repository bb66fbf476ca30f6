"""`torch.backends.openmp`: threads of OpenMP, of which there are none."""

from facula.absent import Absent

_none = Absent(__name__, "facula generates its own machine code")

is_available = _none.answers("is_available", False)
