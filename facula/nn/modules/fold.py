"""These layers under the module name that PyTorch's programs import them from."""

from facula.nn.modules.resample import Fold, Unfold

__all__ = ["Fold", "Unfold"]
