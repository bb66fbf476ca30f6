"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from facula.tensor import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The parameters, flattened and joined in order: a 1-D tensor."""
    import facula
    return facula.cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Make the slices of a 1-D tensor the data of the parameters, in order."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected facula.Tensor, but got: {type(vec).__name__}")
    start = 0
    for p in parameters:
        p.data = vec[start:start + p.numel()].view(p.shape).data
        start += p.numel()
