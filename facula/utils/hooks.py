"""What registering a hook returns, where PyTorch keeps it."""

from facula.autograd.handle import RemovableHandle as RemovableHandle

__all__ = ["RemovableHandle"]
