"""A context that mask functions are mapped in."""

from contextlib import AbstractContextManager, nullcontext

__all__ = ["TransformGetItemToIndex"]


def TransformGetItemToIndex() -> AbstractContextManager[None]:
    """A context without effect: a tensor is indexed by mapped tensors without it."""
    return nullcontext()
