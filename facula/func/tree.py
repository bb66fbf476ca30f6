"""Nested tuples, lists and dicts as flat lists: what transforms take and return.

The containers are PyTorch's: tuple, list, dict, OrderedDict and named tuples.  Anything else,
None included, is a leaf.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

__all__ = ["flatten", "unflatten", "tree_map", "broadcast_prefix", "Tree"]

LEAF: Any = ("leaf",)

Tree = Any
"""How a value is nested: LEAF, or (type, keys or None, the trees of its parts)."""


def _parts(value: Any) -> tuple[Any, Any, list[Any]] | None:
    kind = type(value)
    if kind is tuple or kind is list:
        return kind, None, list(value)
    if kind is dict or kind is OrderedDict:
        return kind, tuple(value), list(value.values())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind, None, list(value)
    return None


def flatten(value: Any) -> tuple[list[Any], Tree]:
    """The leaves in order, and what `unflatten` needs to put them back."""
    leaves: list[Any] = []
    return leaves, _flatten(value, leaves)


def _flatten(value: Any, leaves: list[Any]) -> Tree:
    parts = _parts(value)
    if parts is None:
        leaves.append(value)
        return LEAF
    kind, keys, inner = parts
    return kind, keys, tuple([_flatten(v, leaves) for v in inner])


def unflatten(leaves: Any, tree: Tree) -> Any:
    """The value whose leaves these are."""
    return _unflatten(iter(leaves), tree)


def _unflatten(leaves: Any, tree: Tree) -> Any:
    if tree is LEAF:
        return next(leaves)
    kind, keys, inner = tree
    parts = [_unflatten(leaves, t) for t in inner]
    if keys is not None:
        return kind(zip(keys, parts))
    return kind(parts) if kind is tuple or kind is list else kind(*parts)


def tree_map(fn: Callable[[Any], Any], value: Any) -> Any:
    """`fn` of every leaf, nested as `value` is."""
    leaves, tree = flatten(value)
    return unflatten([fn(v) for v in leaves], tree)


def count(tree: Tree) -> int:
    """How many leaves there are."""
    return 1 if tree is LEAF else sum(count(t) for t in tree[2])


def broadcast_prefix(value: Any, tree: Tree) -> list[Any] | None:
    """The leaves of `value`, each repeated for the whole part of `tree` it stands for.

    None where `value` is nested otherwise than `tree` begins.
    """
    out: list[Any] = []
    return out if _broadcast(value, tree, out) else None


def _broadcast(value: Any, tree: Tree, out: list[Any]) -> bool:
    parts = _parts(value)
    if parts is None:
        out.extend([value] * count(tree))
        return True
    if tree is LEAF:
        return False
    kind, keys, inner = parts
    if kind is not tree[0] or keys is not None and set(keys) != set(tree[1]) \
            or len(inner) != len(tree[2]):
        return False
    if keys is not None:
        inner = [value[k] for k in tree[1]]
    return all([_broadcast(v, t, out) for v, t in zip(inner, tree[2])])
