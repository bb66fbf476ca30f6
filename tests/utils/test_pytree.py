"""Nested containers under the names of the private `torch.utils._pytree`."""

from collections import OrderedDict, defaultdict, deque, namedtuple

import pytest

from facula.utils import _pytree as tree

Point = namedtuple("Point", "x y")
VALUES = [3, None, [], (), {}, [1, (2, {"a": 3, "b": [4]})], OrderedDict(a=1, b=(2,)),
          deque([1, 2], maxlen=3), Point(1, [2]), defaultdict(list, a=1)]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_there_and_back(value):
    leaves, spec = tree.tree_flatten(value)
    back = tree.tree_unflatten(leaves, spec)
    assert back == value and type(back) is type(value)
    assert spec.num_leaves == len(leaves) and tree.tree_structure(value) == spec
    assert tree.tree_leaves(value) == leaves == list(tree.tree_iter(value))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_as_pytorch(value):
    other = pytest.importorskip("torch.utils._pytree")
    assert tree.tree_leaves(value) == other.tree_leaves(value)
    found, _ = tree.tree_flatten_with_path(value)
    want, _ = other.tree_flatten_with_path(value)
    assert [(tree.keystr(p), v) for p, v in found] == [(other.keystr(p), v) for p, v in want]


def test_maps():
    value = {"a": [1, 2], "b": (3.5,)}
    assert tree.tree_map(lambda v: v * 2, value) == {"a": [2, 4], "b": (7.0,)}
    assert tree.tree_map(lambda a, b: a + b, value, value) == {"a": [2, 4], "b": (7.0,)}
    assert tree.tree_map_only(int, lambda v: -v, value) == {"a": [-1, -2], "b": (3.5,)}
    assert tree.tree_map_only(lambda v: v > 1, lambda v: 0, value) == {"a": [1, 0], "b": (0,)}
    assert tree.tree_map_with_path(lambda p, v: tree.keystr(p), value) == {
        "a": ["['a'][0]", "['a'][1]"], "b": ("['b'][0]",)}
    assert tree.tree_all(bool, value) and tree.tree_any(lambda v: v == 3.5, value)
    assert tree.tree_leaves(value, is_leaf=lambda v: isinstance(v, list)) == [[1, 2], 3.5]
    seen = []
    assert tree.tree_map_(seen.append, value) is value and seen == [1, 2, 3.5]


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="mismatch"):
        tree.tree_map(lambda a, b: a, [1, 2], [1])
    with pytest.raises(ValueError, match="holds 2"):
        tree.tree_unflatten([1], tree.tree_structure([1, 2]))


def test_a_class_of_ones_own():
    class Pair:
        def __init__(self, a, b):
            self.a, self.b = a, b
    assert len(tree.tree_leaves(Pair(1, 2))) == 1
    tree.register_pytree_node(Pair, lambda p: ((p.a, p.b), None), lambda v, _: Pair(*v))
    try:
        assert tree.tree_leaves([Pair(1, 2), 3]) == [1, 2, 3]
        assert tree.tree_map(lambda v: v + 1, Pair(1, 2)).b == 3
        with pytest.raises(ValueError, match="already"):
            tree.register_pytree_node(Pair, None, None)
    finally:
        del tree.SUPPORTED_NODES[Pair]
