"""Square brackets, gathering and scattering against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import facula  # noqa: E402
from tests.ops.torch_pairs import array_of, both, pair, same  # noqa: E402


class T:
    """An index array that becomes a tensor of either library."""

    def __init__(self, array: Any):
        self.array = np.asarray(array)

    def __repr__(self) -> str:
        return f"T({self.array.tolist()})"


def index_for(index: Any, mine: bool) -> Any:
    if isinstance(index, tuple):
        return tuple(index_for(i, mine) for i in index)
    if isinstance(index, T):
        a, b = pair(index.array)
        return a if mine else b
    return index


def random_index(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """An index expression that mostly fits a shape, of every kind of item."""
    items: list[Any] = []
    k = 0
    common = tuple(int(v) for v in rng.integers(1, 4, rng.integers(0, 3)))
    ellipsis = False
    while k < len(shape) and rng.random() < 0.85:
        n = shape[k]
        kind = rng.integers(12)
        if kind == 0:
            items.append(int(rng.integers(-n, n)) if n else slice(None))
        elif kind in (1, 2):
            def b(n: int = n) -> Any:
                return None if rng.random() < 0.4 else int(rng.integers(-n - 1, n + 2))
            items.append(slice(b(), b(), None if rng.random() < 0.5 else int(rng.integers(1, 4))))
        elif kind == 3:
            items.append(None)
            continue
        elif kind == 4 and not ellipsis:
            ellipsis = True
            items.append(Ellipsis)
            skip = int(rng.integers(0, len(shape) - k + 1))
            rest = len(shape) - k - skip
            items.extend([slice(None)] * rest)
            break
        elif kind in (5, 6, 7) and n:
            array = rng.integers(-n, n, common)
            items.append(T(array) if kind != 7 or not common else array.tolist())
        elif kind == 8:
            span = int(rng.integers(1, min(2, len(shape) - k) + 1))
            items.append(T(rng.random(shape[k:k + span]) < 0.5))
            k += span
            continue
        elif kind == 9 and n:
            items.append(np.asarray(rng.integers(0, n, common)))
        elif kind == 10 and n:
            items.append(T(np.asarray(rng.integers(-n, n))))
        elif kind == 11:
            items.append(bool(rng.random() < 0.7))
            continue
        else:
            items.append(slice(None))
        k += 1
    return tuple(items) if len(items) != 1 or rng.random() < 0.5 else items[0]


def _shapes(rng: np.random.Generator) -> tuple[int, ...]:
    low = 0 if rng.random() < 0.1 else 1
    return tuple(int(v) for v in rng.integers(low, 5, rng.integers(1, 5)))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore")
def test_random_reads(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(25):
        shape = _shapes(rng)
        index = random_index(rng, shape)
        mine, theirs = pair(array_of(rng, shape))
        a, b = both(lambda: mine[index_for(index, True)], lambda: theirs[index_for(index, False)])
        if isinstance(b, type):
            assert isinstance(a, type) and issubclass(a, b), (shape, index, a, b)
            continue
        assert not isinstance(a, type), (shape, index, a, b.shape)
        same(a, b, where=f"{shape} {index}")
        if b._base is not None or b.data_ptr() == theirs.data_ptr():
            assert a.stride() == b.stride(), (shape, index)
            assert a.storage_offset() == b.storage_offset(), (shape, index)


def _unique_places(shape: tuple[int, ...], index: Any) -> bool:
    """Whether an index names no element twice."""
    places = torch.arange(int(np.prod(shape))).reshape(shape)[index_for(index, False)]
    return len(torch.unique(places)) == places.numel()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore")
def test_random_writes(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    for _ in range(20):
        shape = _shapes(rng)
        index = random_index(rng, shape)
        mine, theirs = pair(array_of(rng, shape))
        try:
            part = theirs[index_for(index, False)].shape
        except Exception:
            part = ()
        choice = rng.integers(4)
        value: Any
        if choice == 0:
            value = 7.5
        elif choice == 1:
            value = T(np.float32(3))
        elif choice == 2:
            value = T(array_of(rng, tuple(part[-1:]) if part else ()))
        else:
            value = T(array_of(rng, tuple(part)))
        try:
            if choice >= 2 and not _unique_places(shape, index):
                continue
        except Exception:
            pass

        def write(t: Any, is_mine: bool) -> Any:
            t[index_for(index, is_mine)] = index_for(value, is_mine)
            return t

        a, b = both(lambda: write(mine, True), lambda: write(theirs, False))
        if isinstance(b, type):
            assert isinstance(a, type) and issubclass(a, b), (shape, index, value, a, b)
            continue
        assert not isinstance(a, type), (shape, index, value, a)
        same(mine, theirs, where=f"{shape} {index} = {value}")


@pytest.mark.parametrize("index", [
    5, -4, (0, 0, 0, 0), slice(None, None, -1), "a", 1.5, (Ellipsis, 1, 1, 1, 1),
    T([0, 9]), T([[True, False]]), T([0.5]), [0, 3], (T([0, 1]), T([0, 1, 2]))])
def test_wrong_indices(index: Any) -> None:
    mine, theirs = pair(np.ones((3, 2, 2), np.float32))
    a, b = both(lambda: mine[index_for(index, True)], lambda: theirs[index_for(index, False)])
    assert isinstance(b, type) and isinstance(a, type), (a, b)
    assert issubclass(a, b), (a, b)


def test_a_pending_index_is_wrapped_in_the_graph() -> None:
    x = facula.tensor([10.0, 20.0, 30.0], requires_grad=True)
    i = facula.tensor([0, 1]) - 2
    y = x[i]
    assert y._node.value is None
    y.sum().backward()
    assert y.tolist() == [20.0, 30.0]
    assert x.grad.tolist() == [0.0, 1.0, 1.0]


def test_out_of_range_in_one_of_two_indices_does_not_read_the_next_row() -> None:
    x = facula.zeros(3, 5)
    i, j = facula.tensor([0]) + 0, facula.tensor([6]) + 0
    with pytest.raises(IndexError):
        x[i, j].tolist()


def test_gradients_of_reads_and_writes() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((4, 5)) < 0.5
    index = rng.integers(0, 4, (3, 2))
    arrays = array_of(rng, (4, 5)), array_of(rng, (2, 5))
    grads = []
    for k in (0, 1):
        x, v = pair(arrays[0])[k], pair(arrays[1])[k]
        m, i = pair(mask)[k], pair(index)[k]
        x.requires_grad_()
        v.requires_grad_()
        y = x * 1.0
        y[[0, 2]] = v
        y[m] = 0.0
        y[1, ::2] += y[2, ::2]
        out = (y[i] ** 2).sum() + (y[m] * 3).sum() + (x[m] * x[m]).sum() + y[None, :, -1].sum()
        out.backward()
        grads.append((x.grad, v.grad))
    same(grads[0], grads[1], 1e-5, 1e-5)


def test_views_from_brackets_alias() -> None:
    mine, theirs = pair(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    for t in (mine, theirs):
        a = t[1, ..., 1:3]
        a[0] = -1
        t[0, 0].add_(100)
        for row in t[0]:
            row[-1] = 5
        t[:, None, 1][..., 2] *= 2
    same(mine, theirs)


def test_assigning_a_tensor_to_a_part_of_itself() -> None:
    mine, theirs = pair(np.arange(12, dtype=np.float32).reshape(3, 4))
    mine[0] = mine[1]
    theirs[0] = theirs[1]
    mine[1:] = mine[:-1].clone()
    theirs[1:] = theirs[:-1].clone()
    same(mine, theirs)


def test_dtypes_are_converted_on_writing() -> None:
    for dtype in ("int64", "uint8", "bool", "float64"):
        mine, theirs = pair(np.zeros((3,), dtype))
        for t in (mine, theirs):
            t[0] = 2.7
            t[1] = True
        mine[2:] = facula.tensor([1.5])
        theirs[2:] = torch.tensor([1.5])
        same(mine, theirs)


def test_a_tensor_is_a_sequence() -> None:
    mine, theirs = pair(np.arange(6, dtype=np.float32).reshape(3, 2))
    assert len(mine) == 3
    for a, b in zip(mine, theirs, strict=True):
        same(a, b)
    assert 4.0 in mine and 9.0 not in mine
    for fn in (len, iter):
        with pytest.raises(TypeError):
            fn(mine[0, 0])


# ---------------------------------------------------------------- gather, scatter and the like

I = T
M = T(np.arange(12).reshape(3, 4) % 3 == 1)
X = T(np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4))
S = T(np.linspace(1, 9, 20, dtype=np.float32).reshape(5, 4))

CALLS: list[tuple[Any, ...]] = [
    ("gather", X, 0, I([[0, 2, 1, 0], [2, 2, 0, 1]])), ("gather", X, 1, I([[3], [0], [1]])),
    ("gather", X, 0, I([[0, 5, 1, 0]])), ("gather", X, 0, I([0])),
    ("gather", T(np.float32(3)), 0, I(0)),
    ("scatter", X, 0, I([[0, 2, 1, 0]]), S), ("scatter", X, 1, I([[3], [0]]), 2.5),
    ("scatter_add", X, 0, I([[0, 2, 1, 0], [0, 0, 0, 0]]), S),
    ("scatter_add", X, 1, I([[3, 3, 3, 3, 3, 3]]), S),
    *[("scatter_reduce", X, 0, I([[0, 2, 0, 0], [0, 0, 2, 2]]), S, r, {"include_self": s})
      for r in ("sum", "prod", "mean", "amax", "amin") for s in (True, False)],
    ("index_select", X, 1, I([3, 0, 0])), ("index_select", X, 0, I([[1]])),
    ("index_select", X, 0, I([7])), ("index_add", X, 0, I([0, 0, 2, 1, 0]), S),
    ("index_add", X, 0, I([0, 0, 2, 1, 0]), S, {"alpha": 0.5}), ("index_add", X, 0, I([0]), S),
    ("index_copy", X, 0, I([2, 1]), T(np.ones((2, 4), np.float32))),
    ("index_fill", X, 1, I([0, -1]), 4), ("index_put", X,
    (I([0, 1]), I([2, 2])), T(np.float32([5, 6]))),
    ("index_put", X, (I([0, 0]),), T(np.ones((2, 4), np.float32)), True),
    ("index_reduce", X, 0, I([0, 0, 2, 1, 0]), S, "amax"),
    ("index_reduce", X, 0, I([0, 0, 2, 1, 0]), S, "mean", {"include_self": False}),
    ("masked_fill", X, M, -1), ("masked_fill", X, T([True, False, False, True]), 0.5),
    ("masked_fill", X, T([1, 0, 0, 1]), 0.5), ("masked_scatter", X, M, S), ("masked_select", X, M),
    ("masked_select", X, T([[True], [False], [True]])), ("take", X, I([[0, -1], [5, 3]])),
    ("take", X, I([12])), ("put", X, I([0, -1, 5]), T(np.float32([1, 2, 3]))),
    ("put", X, I([0, 0]), T(np.float32([1, 2])), True),
    ("take_along_dim", X, I([[0], [3], [1]]), 1),
    ("take_along_dim", X, I([5, 2])), ("select_scatter", X, T(np.ones(4, np.float32)), 0, 1),
    ("slice_scatter", X, T(np.ones((3, 2), np.float32)), 1, 0, None, 2),
    ("diagonal_scatter", X, T(np.ones(3, np.float32)), 1), ("nonzero", X), ("argwhere", M),
    ("nonzero", T(np.float32(2))), ("bincount", I([1, 4, 1, 0])),
    ("bincount", I([1, 3]), T(np.float32([.5, 2]))),
    ("bincount", I([1, 3]), None, 7), ("bincount", I([-1])), ("histc", X, 4),
    ("histc", X, 5, -1, 1),
    ("searchsorted", T(np.float32([1, 3, 5])), T(np.float32([[3, 0], [9, 4]]))),
    ("searchsorted", T(np.float32([[1, 3, 5], [2, 4, 6]])), T(np.float32([[3, 0], [9, 4]])),
     {"right": True}),
    ("bucketize", T(np.float32([[3, 0], [9, 4]])), T(np.float32([1, 3, 5]))),
    ("isin", I([1, 2, 3]), I([2, 7])),
    ("unique", I([3, 1, 1, 2]), {"return_inverse": True, "return_counts": True}),
    ("unique", I([[3, 1], [3, 1], [0, 2]]), {"dim": 0, "return_inverse": True}),
    ("unique_consecutive", I([1, 1, 2, 1, 1]), {"return_inverse": True, "return_counts": True}),
    ("unique_consecutive", I([[1, 1], [1, 1], [2, 1]]), {"dim": 0, "return_counts": True}),
    ("one_hot", I([[0, 2], [1, 1]])), ("one_hot", I([0, 2]), 5), ("one_hot", I([0, 7]), 5)]


@pytest.mark.parametrize("call", CALLS, ids=lambda c: c[0])
@pytest.mark.filterwarnings("ignore")
def test_functions(call: tuple[Any, ...]) -> None:
    name, *args = call
    kwargs = args.pop() if isinstance(args[-1], dict) else {}
    torch_fn = getattr(torch, name, None) or getattr(torch.nn.functional, name)
    from facula.ops.define import OPS
    mine, theirs = both(
        lambda: OPS[name].fn(*[index_for(a, True) for a in args], **kwargs),
        lambda: torch_fn(*[index_for(a, False) for a in args], **kwargs))
    if isinstance(theirs, type):
        assert isinstance(mine, type), mine
        assert issubclass(mine, (theirs, IndexError)), (mine, theirs)
        return
    assert not isinstance(mine, type), mine
    same(mine, theirs)
    inplace = f"{name}_"
    if hasattr(torch.Tensor, inplace) and hasattr(facula.Tensor, inplace):
        a, b = index_for(args[0], True), index_for(args[0], False)
        getattr(a, inplace)(*[index_for(v, True) for v in args[1:]], **kwargs)
        getattr(b, inplace)(*[index_for(v, False) for v in args[1:]], **kwargs)
        same(a, b)
