"""Products of matrices against PyTorch: shapes, dtypes, errors, gradients."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import facula  # noqa: E402
from facula.ops.contractions import bilinear, linear  # noqa: E402
from tests.ops.torch_pairs import array_of, both, pair, same  # noqa: E402

SHAPES = [((3, 4), (4, 5)), ((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 5)), ((2, 3, 4), (4, 5)),
          ((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)), ((4,), (2, 4, 5)), ((2, 3, 4), (4,)),
          ((5, 1, 3, 4), (2, 4, 2)), ((1, 3, 4), (5, 4, 2)), ((5, 3, 4), (1, 4, 2)),
          ((2, 0), (0, 3)), ((0, 3), (3, 2)), ((0, 2, 3), (3, 4)), ((2, 3, 0), (2, 0, 1)),
          ((3, 4), (3, 4)), ((2, 3, 4), (3, 4, 5)), ((2, 3, 4), (2, 3, 5)), ((), (3,)),
          ((3,), (4,)), ((3, 4), (5,)), ((6, 28), (784, 128))]


@pytest.mark.parametrize("a, b", SHAPES)
def test_matmul_and_its_gradient(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    (x, p), (y, q) = pair(array_of(rng, a)), pair(array_of(rng, b))
    for t in (x, y, p, q):
        t.requires_grad_()
    mine, theirs = both(lambda: x @ y, lambda: p @ q)
    if isinstance(theirs, type):
        assert issubclass(mine, theirs)
        return
    same(mine, theirs, rtol=1e-5, atol=1e-5)
    weights = array_of(rng, tuple(theirs.shape))
    u, v = pair(weights)
    (mine * u).sum().backward()
    (theirs * v).sum().backward()
    same(x.grad, p.grad, rtol=1e-5, atol=1e-5)
    same(y.grad, q.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float64", "complex64", "float16"])
def test_dtypes(dtype: str) -> None:
    rng = np.random.default_rng(1)
    (x, p), (y, q) = pair(array_of(rng, (3, 4), dtype)), pair(array_of(rng, (4, 2), dtype))
    tol = 1e-2 if dtype == "float16" else 1e-5
    same(x @ y, p @ q, tol, tol)
    same(x[0] @ y[:, 0], p[0] @ q[:, 0], tol, tol)


def test_messages() -> None:
    with pytest.raises(RuntimeError, match=re.escape(
            "mat1 and mat2 shapes cannot be multiplied (64x28 and 784x128)")):
        linear(facula.zeros(64, 28), facula.zeros(128, 784))
    with pytest.raises(RuntimeError, match=re.escape(
            "mat1 and mat2 shapes cannot be multiplied (6x4 and 5x4)")):
        facula.zeros(2, 3, 4) @ facula.zeros(5, 4)
    with pytest.raises(RuntimeError, match="expected m1 and m2 to have the same dtype, but got: "
                                           "float != double"):
        facula.zeros(2, 3) @ facula.zeros(3, 2, dtype=facula.float64)
    with pytest.raises(RuntimeError, match="Expected size for first two dimensions of batch2"):
        facula.bmm(facula.zeros(2, 3, 4), facula.zeros(2, 3, 4))


def _calls() -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    return [
        ("mm", ((3, 4), (4, 2)), {}), ("mm", ((3,), (3, 2)), {}), ("mm", ((3, 4), (3, 4)), {}),
        ("bmm", ((2, 3, 4), (2, 4, 2)), {}), ("bmm", ((2, 3, 4), (3, 4, 2)), {}),
        ("mv", ((3, 4), (4,)), {}), ("mv", ((3, 4), (3,)), {}), ("dot", ((4,), (4,)), {}),
        ("dot", ((4,), (3,)), {}), ("dot", ((4, 1), (4,)), {}), ("vdot", ((4,), (4,)), {}),
        ("inner", ((2, 3), (4, 3)), {}), ("inner", ((), (4, 3)), {}), ("outer", ((2,), (3,)), {}),
        ("addmm", ((3, 2), (3, 4), (4, 2)), {}),
        ("addmm", ((2,), (3, 4), (4, 2)), {"beta": 0.5, "alpha": -2}),
        ("addmm", ((3, 2), (3, 4), (4, 2)), {"beta": 0}),
        ("addmv", ((3,), (3, 4), (4,)), {"alpha": 3}),
        ("addbmm", ((3, 2), (2, 3, 4), (2, 4, 2)), {"beta": 2}),
        ("baddbmm", ((2, 3, 2), (2, 3, 4), (2, 4, 2)), {"beta": 2, "alpha": 0.5}),
        ("addr", ((3, 2), (3,), (2,)), {"alpha": 0.5}), ("chain_matmul", ((2, 5), (5, 1),
        (1, 7)), {}),
        ("tensordot", ((2, 3, 4), (3, 4, 5)), {"dims": 2}),
        ("tensordot", ((2, 3, 4), (4, 3)), {"dims": ([1, 2], [1, 0])}),
        ("tensordot", ((2, 3), (4, 5)), {"dims": 0}), ("tensordot", ((2, 3), (4, 5)), {"dims": 1}),
        ("kron", ((2, 2), (3,)), {}), ("cross", ((4, 3), (4, 3)), {"dim": 1}), ("trace",
        ((3, 4),), {})]


@pytest.mark.parametrize("name, shapes, kwargs", _calls())
@pytest.mark.filterwarnings("ignore")
def test_products(name: str, shapes: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    pairs = [pair(array_of(rng, s)) for s in shapes]
    mine, theirs = both(lambda: getattr(facula, name)(*[p[0] for p in pairs], **kwargs),
                        lambda: getattr(torch, name)(*[p[1] for p in pairs], **kwargs))
    if isinstance(theirs, type):
        assert issubclass(mine, theirs), (mine, theirs)
        return
    same(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("equation, shapes", [
    ("ij,jk->ik", ((2, 3), (3, 4))), ("ij,jk", ((2, 3), (3, 4))), ("ba,cb", ((2, 3), (4, 2))),
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))), ("ii", ((3, 3),)), ("ii->i", ((3, 3),)),
    ("ij->ji", ((2, 3),)), ("ij->", ((2, 3),)), ("ij->i", ((2, 3),)), ("i,j->ij", ((2,), (3,))),
    ("i,i", ((3,), (3,))), ("...ij,...jk->...ik", ((5, 2, 3), (3, 4))), ("bhqd,bhkd->bhqk",
     ((2, 2, 3, 4), (2, 2, 5, 4))), ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5))),
    ("bn,anm,bm->ba", ((2, 5), (3, 5, 4), (2, 4))), ("...->...", ((2, 3),)), ("i...->...",
    ((2, 3),)),
    ("ij,ij->ij", ((2, 3), (2, 1))), ("ij,jk->ik", ((2, 3), (1, 4))), ("a,b,c,d->abcd",
     ((2,), (3,), (2,), (2,))), ("ijj->i", ((2, 3, 3),)), ("aij,a->ij", ((2, 3, 4), (2,))),
    ("ij,jk->ik", ((2, 3), (4, 4))), ("ij,k", ((2,), (3,))), ("ij->iz", ((2, 3),)),
    ("ij->ii", ((2, 3),)), ("i,i->", ((0,), (0,))), ("abc,cd->abd", ((2, 0, 3), (3, 2)))])
def test_einsum(equation: str, shapes: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(3)
    pairs = [pair(array_of(rng, s)) for s in shapes]
    for pp in pairs:
        pp[0].requires_grad_()
        pp[1].requires_grad_()
    mine, theirs = both(lambda: facula.einsum(equation, *[p[0] for p in pairs]),
                        lambda: torch.einsum(equation, *[p[1] for p in pairs]))
    if isinstance(theirs, type):
        assert issubclass(mine, theirs), (mine, theirs)
        return
    same(mine, theirs, rtol=1e-5, atol=1e-5)
    (mine * mine).sum().backward()
    (theirs * theirs).sum().backward()
    for x, p in pairs:
        same(x.grad, p.grad, rtol=1e-4, atol=1e-5)


def test_einsum_with_lists() -> None:
    rng = np.random.default_rng(3)
    (x, p), (y, q) = pair(array_of(rng, (2, 3))), pair(array_of(rng, (3, 4)))
    same(facula.einsum(x, [0, 1], y, [1, 2], [0, 2]),
         torch.einsum(p, [0, 1], q, [1, 2], [0, 2]), 1e-5, 1e-5)
    same(facula.einsum(x, [0, 1], y, [1, 2]), torch.einsum(p, [0, 1], q, [1, 2]), 1e-5, 1e-5)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(lead: tuple[int, ...], bias: bool) -> None:
    rng = np.random.default_rng(4)
    (x, p), (w, v), (b, c) = (pair(array_of(rng, s)) for s in ((*lead, 4), (5, 4), (5,)))
    same(linear(x, w, b if bias else None),
         torch.nn.functional.linear(p, v, c if bias else None), 1e-5, 1e-5)


def test_linear_is_one_product() -> None:
    x, w, b = facula.ones(2, 3, 4), facula.ones(5, 4), facula.ones(5)
    out = linear(x, w, b)
    graph = out._node.at[0]
    assert graph is not None
    steps = [s for s in graph.path() if s.op == "matmul"]
    assert steps[-1].spec.shape == (6, 5)


def test_bilinear() -> None:
    rng = np.random.default_rng(5)
    (x, p), (y, q), (w, v), (b, c) = (pair(array_of(rng, s))
                                      for s in ((2, 3), (2, 4), (5, 3, 4), (5,)))
    same(bilinear(x, y, w, b), torch.nn.functional.bilinear(p, q, v, c), 1e-5, 1e-5)


def test_operators_with_arrays_and_numbers() -> None:
    x = facula.ones(2, 3)
    assert (np.ones((4, 2), np.float32) @ x.numpy()).shape == (4, 3)
    with pytest.raises(TypeError):
        x @ 3
    y = facula.ones(2, 2)
    alias = y
    y @= facula.ones(2, 2)
    assert alias is y and y.tolist() == [[2, 2], [2, 2]]
