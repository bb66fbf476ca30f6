"""What programs ask of `torch.onnx` where they are not exporting: whether they are."""

from __future__ import annotations

from facula.absent import Absent

__all__ = ["export", "is_in_onnx_export"]

_none = Absent(__name__, "facula writes no ONNX files",
               ": save the state_dict() with facula.save and load it into the PyTorch model of the "
               "same names, which torch.onnx.export takes")

is_in_onnx_export = _none.answers("is_in_onnx_export", False)
export = _none.refuses("export")
