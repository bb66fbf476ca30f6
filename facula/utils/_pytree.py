"""Nested containers as flat lists, under the names of the private `torch.utils._pytree`.

Containers are tuple, list, dict, OrderedDict, defaultdict, deque, named tuples and the classes
that are registered; anything else, None included, is a leaf.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["GetAttrKey", "LeafSpec", "MappingKey", "PyTree", "SUPPORTED_NODES", "SequenceKey",
           "TreeSpec", "keystr", "register_pytree_node", "tree_all", "tree_any", "tree_flatten",
           "tree_flatten_with_path", "tree_iter", "tree_leaves", "tree_map", "tree_map_",
           "tree_map_only", "tree_map_only_", "tree_map_with_path", "tree_structure",
           "tree_unflatten"]

PyTree = Any
Leaf = Callable[[Any], bool] | None


class SequenceKey(NamedTuple):
    """The place of an element of a list, a tuple or a deque."""

    idx: int

    def __str__(self) -> str:
        return f"[{self.idx!r}]"


class MappingKey(NamedTuple):
    """The place of an element of a dict."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"


class GetAttrKey(NamedTuple):
    """The place of an element of a named tuple or an object."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"


def keystr(kp: Iterable[Any]) -> str:
    """A path as one writes it in Python: "['a'][0].x"."""
    return "".join([str(k) for k in kp])


class NodeDef(NamedTuple):
    """How a container is taken apart and put together."""

    flatten_fn: Callable[[Any], tuple[list[Any], Any]]
    unflatten_fn: Callable[[Iterable[Any], Any], Any]
    keys: Callable[[Any], list[Any]]


def _indices(value: Any) -> list[Any]:
    return [SequenceKey(i) for i in range(len(value))]


def _names(value: Any) -> list[Any]:
    return [MappingKey(k) for k in value]


SUPPORTED_NODES: dict[type, NodeDef] = {
    list: NodeDef(lambda v: (list(v), None), lambda c, _: list(c), _indices),
    tuple: NodeDef(lambda v: (list(v), None), lambda c, _: tuple(c), _indices),
    dict: NodeDef(lambda v: (list(v.values()), list(v)), lambda c, k: dict(zip(k, c)), _names),
    OrderedDict: NodeDef(lambda v: (list(v.values()), list(v)),
                         lambda c, k: OrderedDict(zip(k, c)), _names),
    defaultdict: NodeDef(lambda v: (list(v.values()), [v.default_factory, list(v)]),
                         lambda c, k: defaultdict(k[0], zip(k[1], c)), _names),
    deque: NodeDef(lambda v: (list(v), v.maxlen), lambda c, n: deque(c, n), _indices),
}
"""The containers that are known, by their class."""

Flat = tuple[list[Any], Any]


def _dict_flatten(d: Any) -> Flat:
    return SUPPORTED_NODES[dict].flatten_fn(d)


def _dict_unflatten(values: Iterable[Any], context: Any) -> Any:
    return SUPPORTED_NODES[dict].unflatten_fn(values, context)


def _dict_flatten_with_keys(d: Any) -> Flat:
    values, context = _dict_flatten(d)
    return list(zip(_names(d), values)), context


def _list_flatten(d: Any) -> Flat:
    return SUPPORTED_NODES[list].flatten_fn(d)


def _list_unflatten(values: Iterable[Any], context: Any) -> Any:
    return list(values)


_NAMED = NodeDef(lambda v: (list(v), type(v)), lambda c, cls: cls(*c),
                 lambda v: [GetAttrKey(n) for n in v._fields])
SUPPORTED_NODES[namedtuple] = _NAMED             # of any class, which is the context


def register_pytree_node(cls: type, flatten_fn: Callable[[Any], tuple[Any, Any]],
                         unflatten_fn: Callable[[Iterable[Any], Any], Any], *,
                         serialized_type_name: str | None = None, to_dumpable_context: Any = None,
                         from_dumpable_context: Any = None, flatten_with_keys_fn: Any = None
                         ) -> None:
    """Make `cls` a container: `flatten_fn(value)` is (parts, context), and
    `unflatten_fn(parts, context)` the way back.  ValueError if it is one already."""
    if cls in SUPPORTED_NODES:
        raise ValueError(f"{cls} is already registered as pytree node")

    def keys(value: Any) -> list[Any]:
        if flatten_with_keys_fn is not None:
            return [k for k, _ in flatten_with_keys_fn(value)[0]]
        return [SequenceKey(i) for i in range(len(list(flatten_fn(value)[0])))]

    def parts(value: Any) -> tuple[list[Any], Any]:
        found, context = flatten_fn(value)
        return list(found), context
    SUPPORTED_NODES[cls] = NodeDef(parts, unflatten_fn, keys)


_register_pytree_node = register_pytree_node


@dataclasses.dataclass(frozen=True)
class TreeSpec:
    """How a value is nested.  `type` is the container's class, None for a leaf."""

    type: Any
    context: Any
    children_specs: list[TreeSpec]

    def is_leaf(self) -> bool:
        """Whether it stands for a leaf."""
        return self.type is None

    @property
    def num_leaves(self) -> int:
        """How many leaves there are."""
        return 1 if self.type is None else sum([c.num_leaves for c in self.children_specs])

    @property
    def num_children(self) -> int:
        """How many parts the container has."""
        return len(self.children_specs)

    def flatten_up_to(self, tree: Any) -> list[Any]:
        """The parts of `tree` where this has leaves.  ValueError if it is nested otherwise."""
        out: list[Any] = []
        _up_to(self, tree, out)
        return out

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """The value whose leaves these are."""
        return tree_unflatten(leaves, self)


_LEAF = TreeSpec(None, None, [])


def LeafSpec() -> TreeSpec:
    """The spec of a leaf."""
    return _LEAF


def _get_node_type(tree: Any) -> Any:
    """The type that `SUPPORTED_NODES` may know a container by."""
    kind = type(tree)
    return namedtuple if _node(tree) is _NAMED and kind not in SUPPORTED_NODES else kind



def _node(value: Any) -> NodeDef | None:
    kind = type(value)
    found = SUPPORTED_NODES.get(kind)
    if found is None and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _NAMED
    return found


def _up_to(spec: TreeSpec, value: Any, out: list[Any]) -> None:
    if spec.is_leaf():
        out.append(value)
        return
    node = _node(value)
    parts, context = node.flatten_fn(value) if node is not None else ([], None)
    if type(value) is not spec.type or context != spec.context \
            or len(parts) != spec.num_children:
        raise ValueError(f"Node type mismatch; expected {spec.type} with {spec.num_children} "
                         f"parts and context {spec.context!r}, but got {type(value)} with "
                         f"{len(parts)} and {context!r}")
    for child, part in zip(spec.children_specs, parts):
        _up_to(child, part, out)


def tree_flatten(tree: Any, is_leaf: Leaf = None) -> tuple[list[Any], TreeSpec]:
    """The leaves in order, and the spec that puts them back."""
    leaves: list[Any] = []

    def walk(value: Any) -> TreeSpec:
        node = None if is_leaf is not None and is_leaf(value) else _node(value)
        if node is None:
            leaves.append(value)
            return _LEAF
        parts, context = node.flatten_fn(value)
        return TreeSpec(type(value), context, [walk(p) for p in parts])
    spec = walk(tree)
    return leaves, spec


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> Any:
    """The value of this spec whose leaves these are.  ValueError for another number of leaves."""
    given = list(leaves)
    if len(given) != treespec.num_leaves:
        raise ValueError(f"tree_unflatten(leaves, treespec): `leaves` has length {len(given)} but "
                         f"the spec refers to a pytree that holds {treespec.num_leaves} items")
    rest = iter(given)

    def build(spec: TreeSpec) -> Any:
        if spec.is_leaf():
            return next(rest)
        node = SUPPORTED_NODES.get(spec.type, _NAMED)
        return node.unflatten_fn([build(c) for c in spec.children_specs], spec.context)
    return build(treespec)


def tree_iter(tree: Any, is_leaf: Leaf = None) -> Iterable[Any]:
    """The leaves, one after the other."""
    return iter(tree_flatten(tree, is_leaf)[0])


def tree_leaves(tree: Any, is_leaf: Leaf = None) -> list[Any]:
    """The leaves in order."""
    return tree_flatten(tree, is_leaf)[0]


def tree_structure(tree: Any, is_leaf: Leaf = None) -> TreeSpec:
    """How the value is nested."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Leaf = None) -> Any:
    """`func` of every leaf (and of what stands there in `rests`), nested as `tree` is."""
    leaves, spec = tree_flatten(tree, is_leaf)
    return tree_unflatten([func(*args) for args in
                           zip(leaves, *[spec.flatten_up_to(r) for r in rests])], spec)


def tree_map_(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Leaf = None) -> Any:
    """`func` is called as by `tree_map`; returns `tree`."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def _only(kinds: Any, func: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if isinstance(kinds, (type, tuple)) or not callable(kinds):
        return lambda v: func(v) if isinstance(v, kinds) else v
    return lambda v: func(v) if kinds(v) else v


def tree_map_only(type_or_types_or_pred: Any, func: Callable[[Any], Any], tree: Any,
                  is_leaf: Leaf = None) -> Any:
    """`func` of the leaves of these types (or for which the predicate holds); others stay."""
    return tree_map(_only(type_or_types_or_pred, func), tree, is_leaf=is_leaf)


def tree_map_only_(type_or_types_or_pred: Any, func: Callable[[Any], Any], tree: Any,
                   is_leaf: Leaf = None) -> Any:
    """`func` is called as by `tree_map_only`; returns `tree`."""
    return tree_map_(_only(type_or_types_or_pred, func), tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: Any, is_leaf: Leaf = None) -> bool:
    """Whether `pred` holds for all leaves."""
    return all([pred(v) for v in tree_leaves(tree, is_leaf)])


def tree_any(pred: Callable[[Any], bool], tree: Any, is_leaf: Leaf = None) -> bool:
    """Whether `pred` holds for some leaf."""
    return any([pred(v) for v in tree_leaves(tree, is_leaf)])


def tree_flatten_with_path(tree: Any, is_leaf: Leaf = None
                           ) -> tuple[list[tuple[tuple[Any, ...], Any]], TreeSpec]:
    """(path, leaf) for each leaf in order, and the spec."""
    found: list[tuple[tuple[Any, ...], Any]] = []

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        node = None if is_leaf is not None and is_leaf(value) else _node(value)
        if node is None:
            found.append((path, value))
            return
        for key, part in zip(node.keys(value), node.flatten_fn(value)[0]):
            walk(part, (*path, key))
    walk(tree, ())
    return found, tree_structure(tree, is_leaf)


def tree_map_with_path(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Leaf = None
                       ) -> Any:
    """As `tree_map`, with the leaf's path as the first argument of `func`."""
    found, spec = tree_flatten_with_path(tree, is_leaf)
    others = [spec.flatten_up_to(r) for r in rests]
    return tree_unflatten([func(path, leaf, *more) for (path, leaf), *more in
                           zip(found, *others)], spec)
