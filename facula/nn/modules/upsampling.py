"""These layers under the module name that PyTorch's programs import them from."""

from facula.nn.modules.resample import (
    Upsample,
    UpsamplingBilinear2d,
    UpsamplingNearest2d,
)

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]
