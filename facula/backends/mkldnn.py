"""`torch.backends.mkldnn`: oneDNN, which is not used."""

from facula.absent import Absent

enabled = False

_none = Absent(__name__, "facula generates its own machine code")

is_available = _none.answers("is_available", False)
