"""What registering a hook on a module returns, where PyTorch keeps it."""

from facula.nn.modules.hooks import RemovableHandle as RemovableHandle

__all__ = ["RemovableHandle"]
