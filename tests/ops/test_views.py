"""Views: what they alias, their strides and offsets, and writing through them, as PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import facula  # noqa: E402
from tests.ops.torch_pairs import array_of, both, pair, same  # noqa: E402


def layout(t: Any) -> tuple[Any, ...]:
    return tuple(t.shape), tuple(t.stride()), t.storage_offset(), t.is_contiguous()


def random_view(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """A view operation that fits a shape, to be applied to either tensor."""
    n = len(shape)
    kinds = ["unsqueeze", "squeeze", "getitem", "expand", "detach"]
    if n:
        kinds += ["permute", "transpose", "select", "narrow", "reshape", "unfold", "flatten",
                  "chunk", "movedim", "slice", "slice", "T"]
    if n >= 2:
        kinds += ["diagonal", "mT", "view"]
    kind = kinds[rng.integers(len(kinds))]
    axis = int(rng.integers(n)) if n else 0
    if kind == "unsqueeze":
        d = int(rng.integers(-n - 1, n + 1))
        return kind, lambda t: t.unsqueeze(d)
    if kind == "squeeze":
        return kind, (lambda t: t.squeeze()) if rng.random() < 0.3 or not n \
            else (lambda t: t.squeeze(axis))
    if kind == "getitem":
        return kind, lambda t: t[None, ...]
    if kind == "expand":
        want = [int(rng.integers(1, 3))] + [-1] * n
        return kind, lambda t: t.expand(want)
    if kind == "permute":
        order = [int(v) for v in rng.permutation(n)]
        return kind, lambda t: t.permute(order)
    if kind == "transpose":
        b = int(rng.integers(n))
        return kind, lambda t: t.transpose(axis, b)
    if kind == "movedim":
        b = int(rng.integers(n))
        return kind, lambda t: t.movedim(axis, b)
    if kind == "select" and shape[axis]:
        i = int(rng.integers(-shape[axis], shape[axis]))
        return kind, lambda t: t.select(axis, i)
    if kind == "narrow":
        a = int(rng.integers(shape[axis] + 1))
        length = int(rng.integers(shape[axis] - a + 1))
        return kind, lambda t: t.narrow(axis, a, max(length, min(1, shape[axis] - a)))
    if kind == "slice":
        a, step = int(rng.integers(0, 3)), int(rng.integers(1, 3))
        return kind, lambda t: t[(slice(None),) * axis + (slice(a, None, step),)]
    if kind in ("reshape", "view"):
        total = int(np.prod(shape))
        cuts = [k for k in range(1, total + 1) if total % k == 0]
        if not cuts:
            return "detach", lambda t: t.detach()
        a = cuts[rng.integers(len(cuts))]
        new = (a, total // a)
        return kind, lambda t: getattr(t, kind)(new)
    if kind == "unfold" and shape[axis]:
        size = int(rng.integers(1, shape[axis] + 1))
        step = int(rng.integers(1, 3))
        return kind, lambda t: t.unfold(axis, size, step)
    if kind == "flatten":
        return kind, lambda t: t.flatten(axis, n - 1)
    if kind == "chunk":
        return kind, lambda t: t.chunk(2, axis)[-1]
    if kind == "diagonal":
        offset = int(rng.integers(-1, 2))
        return kind, lambda t: t.diagonal(offset, 0, n - 1)
    if kind == "mT":
        return kind, lambda t: t.mT
    if kind == "T" and n in (0, 2):
        return kind, lambda t: t.T
    return "detach", lambda t: t.detach()


@pytest.mark.parametrize("seed", range(60))
def test_chains_of_views_have_torch_layout_and_alias(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = tuple(int(k) for k in rng.integers(1, 5, rng.integers(1, 4)))
    mine, theirs = pair(array_of(rng, start))
    views_of = [(mine, theirs)]
    names = []
    for _ in range(6):
        a, b = views_of[rng.integers(len(views_of))]
        name, fn = random_view(rng, tuple(b.shape))
        names.append(name)
        x, y = both(lambda: fn(a), lambda: fn(b))
        if isinstance(y, type):
            assert isinstance(x, type), (names, x, y)
            assert issubclass(x, y), (names, x, y)
            continue
        assert layout(x) == layout(y), (names, layout(a), layout(x), layout(y))
        if y.data_ptr() == 0 or y._base is None and y is not b and name in ("reshape", "flatten") \
                and y.untyped_storage().data_ptr() != theirs.untyped_storage().data_ptr():
            continue                              # a copy
        views_of.append((x, y))
        # Write through a view, read through all of them.
        k = rng.integers(len(views_of))
        p, q = views_of[k]
        value = float(rng.integers(100))

        def write_mine(p: Any = p, value: float = value) -> None:
            p.mul_(2.0)
            p[...] = p + value

        def write_theirs(q: Any = q, value: float = value) -> None:
            q.mul_(2.0)
            q[...] = q + value

        if 0 not in q.stride() or all(n == 1 for n, s in zip(q.shape, q.stride()) if s == 0):
            if _overlaps(q):
                continue
            write_mine()
            write_theirs()
        for i, (p, q) in enumerate(views_of):
            same(p, q, where=f"{names} view {i} after writing {k}")


def _overlaps(t: Any) -> bool:
    """Whether two elements share memory."""
    places = np.zeros(1, np.int64)
    for n, s in zip(t.shape, t.stride()):
        places = (places[:, None] + np.arange(n) * s).reshape(-1)
    return len(np.unique(places)) != len(places)


def test_writing_to_an_expanded_tensor_is_refused() -> None:
    mine, theirs = pair(np.ones((3, 1), np.float32))
    for t in (mine, theirs):
        with pytest.raises(RuntimeError, match="single memory location"):
            t.expand(3, 4).add_(1)


def test_writing_to_one_part_of_an_expanded_tensor() -> None:
    mine, theirs = pair(np.ones((3, 1), np.float32))
    for t in (mine, theirs):
        t.expand(3, 4)[:, 1].add_(1)
    same(mine, theirs)


def test_view_of_what_does_not_lie_together_is_an_error() -> None:
    mine, theirs = pair(np.ones((3, 4), np.float32))
    for t in (mine, theirs):
        with pytest.raises(RuntimeError, match="view size is not compatible"):
            t.t().view(12)


@pytest.mark.parametrize("bad", [(5, 3), (-1, -1), (-1, 5), (-2, 6)])
def test_shapes_that_do_not_fit(bad: tuple[int, ...]) -> None:
    for t in pair(np.ones((3, 4), np.float32)):
        with pytest.raises(RuntimeError):
            t.reshape(bad)


def test_reshape_copies_only_where_it_must() -> None:
    mine, theirs = pair(np.arange(12, dtype=np.float32).reshape(3, 4))
    for t in (mine, theirs):
        t.t().reshape(12).zero_() if hasattr(t, "zero_") else t.t().reshape(12).mul_(0)
        t.reshape(2, 6).add_(1)
    same(mine, theirs)


def test_complex_views() -> None:
    rng = np.random.default_rng(1)
    mine, theirs = pair(array_of(rng, (3, 2), "complex64"))
    a, b = torch.view_as_real(theirs), facula.view_as_real(mine)
    assert layout(a) == layout(b)
    assert layout(theirs.T.imag) == layout(mine.T.imag)
    a.mul_(2)
    b.mul_(2)
    theirs.real.add_(1)
    mine.real.add_(1)
    theirs.T.imag[0] = 5
    mine.T.imag[0] = 5
    same(mine, theirs)
    same(facula.view_as_complex(b), torch.view_as_complex(a))


def test_bytes_as_another_dtype() -> None:
    from facula.dtype import float64, int16, int32
    mine, theirs = pair(np.arange(12, dtype=np.float32).reshape(3, 4))
    for m, t in ((int32, torch.int32), (int16, torch.int16), (float64, torch.float64)):
        a, b = mine.view(m), theirs.view(t)
        assert layout(a) == layout(b)
        same(a, b)
    mine.view(int32)[1] = 0
    theirs.view(torch.int32)[1] = 0
    same(mine, theirs)
    for x in (lambda: mine.t().view(float64), lambda: theirs.t().view(torch.float64)):
        with pytest.raises(RuntimeError):
            x()


def test_as_strided_reads_the_memory_under_a_view() -> None:
    mine, theirs = pair(np.arange(24, dtype=np.float32).reshape(4, 6))
    for t in (mine, theirs):
        v = t[1:, ::2].t()
        w = v.as_strided((3, 2), (7, 1), 2)
        w.add_(100)
    same(mine, theirs)
    same(mine[2].as_strided((2, 2), (1, 2)), theirs[2].as_strided((2, 2), (1, 2)))
    for t in (mine, theirs):
        with pytest.raises(RuntimeError, match="out of bounds"):
            t.as_strided((5, 5), (6, 1), 1)


@pytest.mark.parametrize("name, args", [
    ("split", (2,)), ("split", ([1, 3],)), ("split", (3, 1)), ("chunk", (3,)), ("chunk", (2, 1)),
    ("tensor_split", (3,)), ("tensor_split", ((1, 3), 1)), ("hsplit", (5,)), ("unbind", ()),
    ("unbind", (1,)), ("split", ([1, 2],)), ("hsplit", (2,)), ("vsplit", (2,)), ("chunk", (0,))])
def test_parts(name: str, args: Any) -> None:
    mine, theirs = pair(np.arange(20, dtype=np.float32).reshape(4, 5))
    a, b = both(lambda: getattr(mine, name)(*args), lambda: getattr(theirs, name)(*args))
    if isinstance(b, type):
        assert issubclass(a, b)
        return
    same(a, b)
    assert [layout(x) for x in a] == [layout(y) for y in b]


def test_in_place_reshaping() -> None:
    mine, theirs = pair(np.arange(6, dtype=np.float32).reshape(1, 6))
    for t in (mine, theirs):
        t.unsqueeze_(0).transpose_(0, 2)
        assert tuple(t.shape) == (6, 1, 1)
        t.squeeze_(1)
        t[2] = 50
    same(mine, theirs)


def test_channels_last() -> None:
    mine, theirs = pair(np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4))
    a, b = mine.contiguous("channels_last"), theirs.contiguous(memory_format=torch.channels_last)
    assert a.stride() == b.stride()
    assert a.is_contiguous("channels_last") and not a.is_contiguous()
    same(a, b)
    assert a.contiguous().is_contiguous()


def test_gradient_through_views() -> None:
    rng = np.random.default_rng(3)
    array = array_of(rng, (3, 4))
    mine, theirs = pair(array)
    mine.requires_grad_()
    theirs.requires_grad_()
    grads = []
    for t in (mine, theirs):
        y = t * 1.0
        y.t()[1:3].diagonal().mul_(3.0)
        y[:, 0] = y[:, 1] * 2.0
        (y.unfold(1, 2, 1) * y.unfold(1, 2, 1)).sum().backward()
        grads.append(t.grad)
    same(grads[0], grads[1], rtol=1e-5)


def test_column_major_memory_from_outside() -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    other = array.copy(order="F")
    mine, theirs = facula.from_numpy(array), torch.from_numpy(other)
    parts = [(mine, theirs), (mine[:, 1], theirs[:, 1]), (mine.T, theirs.T)]
    for k in range(3):
        for t in parts[k]:
            t.add_(10.0)
        for a, b in parts:
            assert layout(a) == layout(b)
            same(a, b)
        np.testing.assert_array_equal(array, other)
    same(mine.as_strided((3,), (1,), 1), theirs.as_strided((3,), (1,), 1))
