"""Holding facula against PyTorch: one input for both, and the comparison of what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np

import facula.autograd.methods
import facula.graph.flush  # noqa: F401  (makes pending values computable)
from facula.ops import (  # noqa: F401  (they attach the methods that are tested)
    arithmetic,
    composite,
    reductions,
    unary,
)
from facula.ops.layout import host
from facula.tensor import Tensor

__all__ = ["pair", "same", "both", "array_of"]


def array_of(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32"
             ) -> np.ndarray:
    """Random values of a dtype, integers small."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype.startswith(("int", "uint")):
        return rng.integers(0 if dtype.startswith("u") else -9, 9, shape).astype(dtype)
    values = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values, dtype)


def pair(array: Any) -> tuple[Tensor, Any]:
    """The same content as facula's tensor and as PyTorch's."""
    import torch
    array = np.asarray(array)
    theirs = torch.empty(array.shape, dtype=torch.tensor(array).dtype)
    return host(array.copy()), theirs.copy_(torch.tensor(array))


def same(mine: Any, theirs: Any, rtol: float = 1e-6, atol: float = 1e-6, where: str = "") -> None:
    """Fail unless shapes, dtypes and values agree; tuples are compared one by one."""
    import torch
    if isinstance(theirs, (tuple, list)):
        assert len(mine) == len(theirs), where
        for a, b in zip(mine, theirs):
            same(a, b, rtol, atol, where)
        return
    if not isinstance(theirs, torch.Tensor):
        assert mine == theirs, (where, mine, theirs)
        return
    assert tuple(mine.shape) == tuple(theirs.shape), (where, mine.shape, theirs.shape)
    assert mine.dtype.name == str(theirs.dtype).removeprefix("torch."), (where, mine.dtype,
                                                                         theirs.dtype)
    want = theirs.detach().resolve_conj().resolve_neg()
    got = mine._peek()
    if want.dtype == torch.bfloat16:
        want, got = want.float(), got.astype(np.float32)
    np.testing.assert_allclose(got, want.numpy(), rtol=rtol, atol=atol, err_msg=where)


def both(mine: Any, theirs: Any) -> tuple[Any, Any]:
    """The results of two thunks, an exception's type standing for a result."""
    out = []
    for call in (mine, theirs):
        try:
            value = call()
            if isinstance(value, Tensor):
                value._peek()
            out.append(value)
        except Exception as error:
            out.append(type(error))
    return out[0], out[1]
