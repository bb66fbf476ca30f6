"""These layers under the module name that PyTorch's programs import them from."""

from facula.nn.modules.resample import ChannelShuffle

__all__ = ["ChannelShuffle"]
