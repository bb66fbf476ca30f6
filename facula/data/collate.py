"""From a list of samples to a batch, and from one sample to tensors."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from facula.data.arrays import is_tensor, peek, to_tensor
from facula.errors import ShapeError
from facula.tensor import Tensor

__all__ = ["collate", "default_collate", "default_convert", "default_collate_fn_map"]

_OBJECTS = re.compile(r"[SaUO]")
_MESSAGE = ("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
            "found {}")


def _rebuild_mapping(example: Any, make: Callable[[Any], Any]) -> Any:
    """A mapping of `example`'s type with `make(key)` for each key; a dict where that fails."""
    try:
        if isinstance(example, MutableMapping):
            clone = copy.copy(example)
            clone.update({key: make(key) for key in example})
            return clone
        return type(example)({key: make(key) for key in example})
    except TypeError:
        return {key: make(key) for key in example}


def _rebuild_sequence(example: Any, parts: list[Any]) -> Any:
    """A sequence of `example`'s type with these parts; a list where that fails."""
    try:
        if isinstance(example, MutableSequence):
            clone = copy.copy(example)
            for i, part in enumerate(parts):
                clone[i] = part
            return clone
        return type(example)(parts)                            # type: ignore[call-arg]
    except TypeError:
        return parts


def default_convert(data: Any) -> Any:
    """Turn the NumPy arrays in one sample into tensors; containers keep their type.

    It is the collate function of a loader that does not batch.
    """
    kind = type(data)
    if is_tensor(data):
        return data
    if kind.__module__ == "numpy" and kind.__name__ not in ("str_", "string_", "bytes_"):
        if isinstance(data, np.ndarray) and _OBJECTS.search(data.dtype.str):
            return data
        return to_tensor(data)
    if isinstance(data, Mapping):
        return _rebuild_mapping(data, lambda key: default_convert(data[key]))
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return kind(*(default_convert(d) for d in data))
    if isinstance(data, tuple):
        return [default_convert(d) for d in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _rebuild_sequence(data, [default_convert(d) for d in data])
    return data


def collate(batch: Any, *, collate_fn_map: dict[Any, Callable[..., Any]] | None = None) -> Any:
    """Collate with a function for each element type, found in `collate_fn_map`.

    Containers are descended into.  Raises `TypeError` for element types that are in no map, and
    `RuntimeError` for sequences of unequal length.
    """
    elem = batch[0]
    kind = type(elem)
    if collate_fn_map is not None:
        if kind in collate_fn_map:
            return collate_fn_map[kind](batch, collate_fn_map=collate_fn_map)
        for known in collate_fn_map:
            if isinstance(elem, known):
                return collate_fn_map[known](batch, collate_fn_map=collate_fn_map)
    if isinstance(elem, Mapping):
        return _rebuild_mapping(
            elem, lambda key: collate([d[key] for d in batch], collate_fn_map=collate_fn_map))
    if isinstance(elem, tuple) and hasattr(elem, "_fields"):
        return kind(*(collate(samples, collate_fn_map=collate_fn_map)
                      for samples in zip(*batch)))
    if isinstance(elem, Sequence):
        if any(len(other) != len(elem) for other in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        parts = [collate(samples, collate_fn_map=collate_fn_map) for samples in zip(*batch)]
        return parts if isinstance(elem, tuple) else _rebuild_sequence(elem, parts)
    raise TypeError(_MESSAGE.format(kind))


def _collate_tensors(batch: Any, *, collate_fn_map: Any = None) -> Any:
    first = batch[0]
    for k, t in enumerate(batch):
        if t.shape != first.shape:
            raise ShapeError(f"stack expects each tensor to be equal size, but got "
                             f"{list(first.shape)} at entry 0 and {list(t.shape)} at entry {k}")
    if any(t.requires_grad or t.dtype is not first.dtype for t in batch):
        import facula
        return facula.stack(list(batch), 0)
    return to_tensor(np.stack([peek(t) for t in batch]), fresh=True)


def _collate_arrays(batch: Any, *, collate_fn_map: Any = None) -> Any:
    if _OBJECTS.search(batch[0].dtype.str):
        raise TypeError(_MESSAGE.format(batch[0].dtype))
    return _collate_tensors([to_tensor(b) for b in batch])


def _collate_scalars(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return to_tensor(np.array(batch), fresh=True)


def _collate_floats(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return to_tensor(np.array(batch, np.float64), fresh=True)


def _collate_ints(batch: Any, *, collate_fn_map: Any = None) -> Any:
    array = np.array(batch)
    return to_tensor(array.astype(np.float32) if array.dtype.kind == "f" else array, fresh=True)


def _collate_strings(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return batch


default_collate_fn_map: dict[Any, Callable[..., Any]] = {
    Tensor: _collate_tensors,
    np.ndarray: _collate_arrays,
    (np.bool_, np.number): _collate_scalars,
    float: _collate_floats,
    int: _collate_ints,
    str: _collate_strings,
    bytes: _collate_strings,
}
"""What `default_collate` does with each element type; users may add to it."""

_ORIGINAL = dict(default_collate_fn_map)


def untouched() -> bool:
    """Nobody has changed how tensors and numbers are collated."""
    return default_collate_fn_map == _ORIGINAL


def default_collate(batch: Any) -> Any:
    """Stack samples along a new first dimension, descending into containers.

    Tensors and arrays [..] of N samples become a tensor [N, ..]; Python floats float64, ints
    int64; strings and bytes stay a list; tuples become lists, other containers keep their type.
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)
