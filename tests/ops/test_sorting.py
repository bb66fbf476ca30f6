"""Order, scans, padding, joining and statistics against PyTorch, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import facula  # noqa: E402
from facula.nn.functional import pad  # noqa: E402
from tests.ops.torch_pairs import array_of, both, pair, same  # noqa: E402

NAN = float("nan")
INF = float("inf")
X = np.array([[3, 1, 2, 1], [NAN, 5, -INF, 0], [2, 2, 7, 2]], np.float32)
F = np.linspace(-3, 4, 12, dtype=np.float32).reshape(3, 4)[:, ::-1].copy() + \
    np.float32([[0.1], [1.3], [-0.7]])
G = np.random.default_rng(5).standard_normal((2, 3, 4)).astype(np.float32)
I = (np.arange(12) * 7 % 5).reshape(3, 4)
B = I > 2
E = np.zeros((3, 0), np.float32)
Z = np.float32(2.5)

CALLS: list[tuple[Any, ...]] = [
    *[(n, a, *r) for n in ("sort", "argsort") for a in (X, I, B, G)
      for r in ((), (0,), (-1, True))], ("sort", Z), ("sort", E), ("msort", X),
    *[("topk", a, *r) for a in (F, G) for r in ((2,), (1, 0), (2, -1, False))], ("topk", F, 9),
    *[("kthvalue", a, k, d) for a in (F, G) for k, d in ((1, 0), (2, -1), (9, 0))],
    *[(n, a, *r) for n in ("median", "nanmedian") for a in (X, F, G) for r in ((), (0,),
    (1, True))],
    ("median", I, 1), ("mode", I, 1), ("mode", I, 0, True), ("mode", F),
    *[("quantile", F, q, d, k, {"interpolation": m}) for q in (0.3, 1.0) for d, k in
      ((None, False), (1, True), (0, False))
      for m in ("linear", "lower", "higher", "midpoint", "nearest")],
    ("quantile", X, 0.4, 1), ("nanquantile", X, 0.4, 1), ("nanquantile", X, 0.5),
    ("quantile", F, 1.5),
    *[(n, a, d) for n in ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
      for a in (X, F, G, Z) for d in (0, -1)], ("cumsum", I, 1), ("cumprod", B, 0),
      ("cummax", I, 1),
    ("cumsum", E, 1), ("diff", F), ("diff", F, 2, 0), ("diff", B), ("diff", F, 1, -1, F, F),
    *[(n, a, *r) for n in ("var", "std") for a in (F, G) for r in
      ((), (0,), (1, False), (0, True, True), ({"correction": 0},),
      ({"correction": 2, "dim": -1},))],
    ("var", np.ones((1,), np.float32)), ("var", I), ("var_mean", F, 1), ("std_mean", G, (0, 2)),
    *[("norm", a, p, d) for a in (F, G) for p in (2, 1, INF, -INF, 0, 3, 0.5, "fro")
      for d in (None, 0, (0, 1))], ("norm", F), ("dist", F, F + 1), ("dist", F, F * 2, 1),
    ("renorm", F, 2, 0, 1.5), ("renorm", G, 1, 1, 3), ("cov", F), ("cov", F, {"correction": 0}),
    ("cov", F[0]), ("cov", F, {"fweights": np.array([1, 2, 1, 3])}),
    ("cov", F, {"aweights": np.float32([1, 2, .5, 3])}), ("corrcoef", F), ("cdist", F, F[:2] + 0.5),
    ("cdist", G, G[:, :1] + 0.1, 1.0), ("cdist", G, G[0] - 0.3, 3.0),
    ("cdist", F, F[:1] * 1.3 + 1, INF),
    ("cat", [F, F[:1]]), ("cat", [F, np.zeros(0, np.float32)]), ("cat", [F, I], 1), ("cat", [F, G]),
    ("cat", [Z]), ("cat", [F, F[:, :1]]), ("stack", [F, F], 1), ("stack", [F, F[:1]]),
    ("hstack", [F, F]), ("hstack", [F[0], F[1]]), ("vstack", [F[0], F]), ("dstack", [F, F]),
    ("column_stack", [F[:, 0], F]), ("flip", G, (0, 2)), ("flip", F, (0, 0)), ("fliplr", F),
    ("flipud", F), ("roll", F, 2), ("roll", F, (1, -1), (0, 1)), ("roll", F, (1, 2)), ("rot90", F),
    ("rot90", G, 3, (0, 2)), ("rot90", F, 2), ("tile", F, (2, 1, 2)), ("repeat_interleave", F, 2),
    ("repeat_interleave", F, np.array([2, 0, 1]), 0), ("repeat_interleave", np.array([2, 0, 1])),
    ("tril", G), ("tril", F, -1), ("triu", F, 1), ("triu", Z), ("diag", F[0]), ("diag", F, -1),
    ("diag", F[0], 2), ("diag_embed", F), ("diag_embed", F, -1, 0, 2), ("diag_embed", F, 1, 2, 1),
    ("diagflat", F), ("meshgrid", F[0], F[:, 0]), ("meshgrid", F[0], F[:, 0], {"indexing": "xy"}),
    ("broadcast_tensors", F[0], F[:, :1]), ("atleast_3d", F), ("atleast_2d", F[0]),
    ("atleast_1d", Z),
    ("kron", F, F[:2]), ("outer", F[0], F[1]), ("trace", F), ("trace", I)]


def tensors(value: Any, k: int, found: list[Any], grad: bool) -> Any:
    if isinstance(value, list):
        return [tensors(v, k, found, grad) for v in value]
    if isinstance(value, dict):
        return {a: tensors(v, k, found, False) for a, v in value.items()}
    if isinstance(value, (np.ndarray, np.float32)):
        t = pair(value)[k]
        if grad and np.asarray(value).dtype == np.float32:
            t.requires_grad_()
        found.append(t)
        return t
    return value


def _name(call: Any) -> str:
    return str(call[0])


def _weighted(values: Any, k: int) -> Any:
    """A scalar in which every element of every differentiable output has its own weight."""
    total = None
    for v in values if isinstance(values, (tuple, list)) else [values]:
        if not v.requires_grad:
            continue
        n = v.numel()
        w = pair(np.cos(np.arange(n, dtype=np.float32)).reshape(tuple(v.shape)))[k]
        part = (v * w).sum()
        total = part if total is None else total + part
    return total


@pytest.mark.parametrize("call", CALLS, ids=_name)
@pytest.mark.filterwarnings("ignore")
def test_values_and_gradients(call: tuple[Any, ...]) -> None:
    name, *args = call
    kwargs = args.pop() if isinstance(args[-1], dict) else {}
    inputs: list[list[Any]] = [[], []]
    a, k = tensors(args, 0, inputs[0], True), tensors(kwargs, 0, inputs[0], False)
    b, q = tensors(args, 1, inputs[1], True), tensors(kwargs, 1, inputs[1], False)
    if name in ("sort", "argsort") and len(args) < 4:
        q["stable"] = True
    fn = getattr(facula, name)
    torch_call = getattr(torch, name)
    if name in ("sort", "argsort"):
        torch_call = lambda x, dim=-1, descending=False, stable=True: getattr(
            torch, name)(x, stable=True, dim=dim, descending=descending)
    mine, theirs = both(lambda: fn(*a, **k), lambda: torch_call(*b, **q))
    if isinstance(theirs, type):
        assert isinstance(mine, type) and issubclass(mine, (theirs,)), (mine, theirs)
        return
    assert not isinstance(mine, type), mine
    if name == "topk":
        same(mine[0], theirs[0])
        return
    if name in ("median", "nanmedian", "mode", "kthvalue") and isinstance(theirs, tuple):
        same(mine[0], theirs[0])          # of equal elements PyTorch names any
    else:
        same(mine, theirs, 2e-5, 2e-5)
    total = _weighted(theirs, 1)
    if total is None or not np.isfinite(X if any(v is X for v in args) else F).all():
        return
    total.backward()
    _weighted(mine, 0).backward()
    for x, y in zip(*inputs):
        if y.grad is not None and y.numel():
            same(x.grad, y.grad, 2e-4, 2e-4)


PADS: list[tuple[Any, ...]] = [
    (F, (1, 2)), (F, (1, 0, 2, 1), "constant", 3.5), (F, (-1, 2)), (F, (-1, -1, 0, 1)), (G,
    (1, 1, 0, 2, 1, 0)),
    (I, (1, 1), "constant", 7), (F, (1, 1), "reflect"), (F, (2, 3), "reflect"), (G,
    (1, 2, 2, 1), "reflect"),
    (F, (4, 0), "reflect"), (F, (1, 1), "replicate"), (G, (5, 1, 0, 3), "replicate"), (F,
    (1, 2), "circular"),
    (G, (1, 2, 3, 0), "circular"), (G, (-1, 2, 1, -1), "replicate"), (F, (1, 2, 3)), (F[0],
    (1, 1, 1, 1)),
    (F, (-9, 0)), (G, (-1, 1), "reflect"), (F, (5, 0), "circular")]


@pytest.mark.parametrize("call", PADS)
def test_padding(call: tuple[Any, ...]) -> None:
    array, *rest = call
    mine, theirs = pair(array)
    if array.dtype == np.float32:
        mine.requires_grad_()
        theirs.requires_grad_()
    a, b = both(lambda: pad(mine, *rest), lambda: torch.nn.functional.pad(theirs, *rest))
    if isinstance(b, type):
        assert isinstance(a, type) and issubclass(a, b), (a, b)
        return
    same(a, b)
    if array.dtype == np.float32:
        _weighted(a, 0).backward()
        _weighted(b, 1).backward()
        same(mine.grad, theirs.grad)


@pytest.mark.parametrize("shape, counts", [((2, 3), (2, 1)), ((3,), (2, 2)), ((), (3,)), ((2,),
(0,)),
                                           ((2, 3), (2,))])
def test_repeat(shape: tuple[int, ...], counts: tuple[int, ...]) -> None:
    mine, theirs = pair(array_of(np.random.default_rng(0), shape))
    a, b = both(lambda: mine.repeat(*counts), lambda: theirs.repeat(*counts))
    if isinstance(b, type):
        assert issubclass(a, b)
    else:
        same(a, b)


def test_the_deviation_of_equal_values_has_gradient_zero() -> None:
    for lib in (facula, torch):
        x = lib.ones(4, requires_grad=True)
        x.std().backward()
        (x - 1).norm().backward()
        assert x.grad.tolist() == [0.0] * 4


def test_variance_of_values_far_from_zero() -> None:
    array = (1e4 + np.arange(5)).astype(np.float32)
    mine, theirs = pair(array)
    same(mine.var(), theirs.var(), 1e-6)


def test_a_result_that_repeats_is_found_again() -> None:
    x = facula.tensor([3.0, 1.0, 2.0])
    first = [x.sort(), x.topk(2), x.cummax(0)]
    again = [x.sort(), x.topk(2), x.cummax(0)]
    for a, b in zip(first, again):
        assert type(a) is type(b) and a._fields == b._fields == ("values", "indices")
        assert a.values.tolist() == b.values.tolist()
