"""Calls of `facula.nn.functional` to compare: shared by the tests against PyTorch and against
finite differences.

A case is (name, call(F, *tensors), inputs); an input is an array: floating ones get gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import facula
import facula.nn.functional as F

Case = tuple[str, Callable[..., Any], tuple[np.ndarray, ...]]

rng = np.random.default_rng(7)


def f(*shape: int, low: float = -3.0, high: float = 3.0) -> np.ndarray:
    """Numbers in [low, high)."""
    return rng.uniform(low, high, shape)


def p(*shape: int) -> np.ndarray:
    """Numbers in [0.05, 0.95)."""
    return f(*shape, low=0.05, high=0.95)


def i(*shape: int, high: int) -> np.ndarray:
    """Integers in [0, high)."""
    return rng.integers(0, high, shape)


def signs(*shape: int) -> np.ndarray:
    """1.0 and -1.0, as integers are not differentiated."""
    return rng.integers(0, 2, shape) * 2 - 1


def _activations() -> list[Case]:
    plain = ["relu", "relu6", "elu", "selu", "celu", "leaky_relu", "gelu", "silu", "mish",
             "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink", "hardtanh",
             "hardsigmoid", "hardswish", "logsigmoid", "sigmoid", "tanh"]
    out: list[Case] = []
    for name in plain:
        for shape in ((3, 5), (), (2, 0), (17,)):
            out.append((f"{name}{shape}", lambda F, x, name=name: getattr(F, name)(x),
                        (f(*shape, low=-7, high=7),)))
    out += [
        ("elu-alpha", lambda F, x: F.elu(x, 0.4), (f(9),)),
        ("celu-alpha", lambda F, x: F.celu(x, 1.7), (f(9),)),
        ("leaky-slope", lambda F, x: F.leaky_relu(x, 0.3), (f(9),)),
        ("gelu-tanh", lambda F, x: F.gelu(x, approximate="tanh"), (f(4, 3),)),
        ("softplus-args", lambda F, x: F.softplus(x, 2.5, 3.0), (f(21),)),
        ("hardtanh-args", lambda F, x: F.hardtanh(x, -2.0, 0.5), (f(21),)),
        ("softshrink-arg", lambda F, x: F.softshrink(x, 1.5), (f(21),)),
        ("hardshrink-arg", lambda F, x: F.hardshrink(x, 1.5), (f(21),)),
        ("threshold", lambda F, x: F.threshold(x, 0.3, 20.0), (f(3, 7),)),
        ("prelu-one", lambda F, x, w: F.prelu(x, w), (f(3, 4), f(1))),
        ("prelu-channels", lambda F, x, w: F.prelu(x, w), (f(3, 4, 2), f(4))),
        ("prelu-1d", lambda F, x, w: F.prelu(x, w), (f(5), f(1))),
        ("rrelu-eval", lambda F, x: F.rrelu(x, 0.1, 0.3, False), (f(3, 4),)),
        ("glu", lambda F, x: F.glu(x), (f(3, 4),)),
        ("glu-0", lambda F, x: F.glu(x, 0), (f(6, 3),)),
        ("softmax", lambda F, x: F.softmax(x, 1), (f(3, 5),)),
        ("softmax-0", lambda F, x: F.softmax(x, 0), (f(3, 5, 2),)),
        ("softmin", lambda F, x: F.softmin(x, -1), (f(3, 5),)),
        ("log_softmax", lambda F, x: F.log_softmax(x, 1), (f(3, 5, 2),)),
        ("normalize", lambda F, x: F.normalize(x), (f(3, 5),)),
        ("normalize-1", lambda F, x: F.normalize(x, p=1, dim=0), (f(3, 5),)),
        ("normalize-3", lambda F, x: F.normalize(x, p=3.0, dim=-1), (f(3, 5),)),
        ("normalize-dims", lambda F, x: F.normalize(x, dim=(1, 2)), (f(2, 3, 4),)),
    ]
    return out


def _layers() -> list[Case]:
    return [
        ("linear", lambda F, x, w, b: F.linear(x, w, b), (f(5, 3), f(4, 3), f(4))),
        ("linear-3d", lambda F, x, w: F.linear(x, w), (f(2, 5, 3), f(4, 3))),
        ("linear-1d", lambda F, x, w, b: F.linear(x, w, b), (f(3), f(4, 3), f(4))),
        ("linear-1d-1d", lambda F, x, w: F.linear(x, w), (f(5, 3), f(3))),
        ("linear-empty", lambda F, x, w, b: F.linear(x, w, b), (f(0, 3), f(4, 3), f(4))),
        ("linear-none", lambda F, x, w, b: F.linear(x, w, b), (f(5, 0), f(4, 0), f(4))),
        ("bilinear", lambda F, x, y, w, b: F.bilinear(x, y, w, b),
         (f(5, 3), f(5, 2), f(4, 3, 2), f(4))),
        ("bilinear-3d", lambda F, x, y, w: F.bilinear(x, y, w),
         (f(2, 5, 3), f(2, 5, 2), f(4, 3, 2))),
        ("embedding", lambda F, x, w: F.embedding(x, w), (i(2, 3, high=5), f(5, 3))),
        ("embedding-0d", lambda F, x, w: F.embedding(x, w), (i(high=5), f(5, 3))),
        ("embedding-pad", lambda F, x, w: F.embedding(x, w, padding_idx=1),
         (np.array([[0, 1, 1], [4, 1, 0]]), f(5, 3))),
        ("embedding-freq", lambda F, x, w: F.embedding(x, w, scale_grad_by_freq=True),
         (np.array([[0, 1, 1], [4, 1, 0]]), f(5, 3))),
        ("layer_norm", lambda F, x, w, b: F.layer_norm(x, (5,), w, b), (f(3, 5), f(5), f(5))),
        ("layer_norm-2", lambda F, x: F.layer_norm(x, (3, 4), eps=1e-3), (f(2, 3, 4),)),
        ("layer_norm-empty", lambda F, x, w: F.layer_norm(x, (4,), w), (f(0, 4), f(4))),
        ("rms_norm", lambda F, x, w: F.rms_norm(x, (5,), w), (f(3, 5), f(5))),
        ("rms_norm-eps", lambda F, x: F.rms_norm(x, (3, 4), eps=1e-3), (f(2, 3, 4),)),
        ("group_norm", lambda F, x, w, b: F.group_norm(x, 3, w, b), (f(2, 6, 3), f(6), f(6))),
        ("group_norm-2d", lambda F, x: F.group_norm(x, 2), (f(3, 4),)),
        ("batch_norm", lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True),
         (f(4, 3), f(3), f(3))),
        ("batch_norm-3d", lambda F, x: F.batch_norm(x, None, None, training=True),
         (f(4, 3, 5),)),
        ("batch_norm-eval", lambda F, x, m, v, w, b: F.batch_norm(
            x, m.detach(), v.detach(), w, b),
         (f(4, 3), f(3), p(3), f(3), f(3))),
        ("instance_norm", lambda F, x, w, b: F.instance_norm(x, weight=w, bias=b),
         (f(2, 3, 5), f(3), f(3))),
        ("lrn", lambda F, x: F.local_response_norm(x, 3, alpha=0.5), (f(2, 5, 3),)),
        ("lrn-even", lambda F, x: F.local_response_norm(x, 4, alpha=0.5, beta=0.5, k=2.0),
         (f(2, 3, 2, 2),)),
        ("pairwise", lambda F, x, y: F.pairwise_distance(x, y), (f(3, 4), f(3, 4))),
        ("pairwise-1", lambda F, x, y: F.pairwise_distance(x, y, p=1.0, keepdim=True),
         (f(3, 4), f(4))),
        ("pairwise-3", lambda F, x, y: F.pairwise_distance(x, y, p=3.0), (f(4), f(4))),
        ("pairwise-inf", lambda F, x, y: F.pairwise_distance(x, y, p=float("inf")),
         (f(3, 4), f(3, 4))),
        ("cosine", lambda F, x, y: F.cosine_similarity(x, y), (f(3, 4), f(3, 4))),
        ("cosine-broadcast", lambda F, x, y: F.cosine_similarity(x, y, dim=-1),
         (f(2, 3, 4), f(1, 4))),
        ("pad", lambda F, x: F.pad(x, (1, 2)), (f(2, 3),)),
        ("pad-value", lambda F, x: F.pad(x, (1, 0, 2, 1), value=2.5), (f(2, 3),)),
        ("pad-crop", lambda F, x: F.pad(x, (-1, 1, 0, -1)), (f(2, 3),)),
        ("pad-reflect", lambda F, x: F.pad(x, (2, 1), mode="reflect"), (f(2, 3, 4),)),
        ("pad-replicate", lambda F, x: F.pad(x, (2, 1, 3, 0), mode="replicate"),
         (f(1, 2, 3, 4),)),
        ("pad-circular", lambda F, x: F.pad(x, (2, 1), mode="circular"), (f(2, 3, 4),)),
    ]


def _reductions(name: str, call: Any, *inputs: np.ndarray) -> list[Case]:
    return [(f"{name}-{r}", lambda F, *a, r=r: call(F, *a, reduction=r), inputs)
            for r in ("mean", "sum", "none")]


def _losses() -> list[Case]:
    out: list[Case] = []
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        out += _reductions(name, lambda F, *a, name=name, **k: getattr(F, name)(*a, **k),
                           f(3, 4), f(3, 4))
        out.append((f"{name}-0d", lambda F, x, y, name=name: getattr(F, name)(x, y),
                    (f(), f())))
        out.append((f"{name}-empty", lambda F, x, y, name=name: getattr(F, name)(
            x, y, reduction="sum"), (f(0, 3), f(0, 3))))
    out += [
        ("smooth_l1-beta", lambda F, x, y: F.smooth_l1_loss(x, y, beta=0.5), (f(9), f(9))),
        ("smooth_l1-0", lambda F, x, y: F.smooth_l1_loss(x, y, beta=0.0), (f(9), f(9))),
        ("huber-delta", lambda F, x, y: F.huber_loss(x, y, delta=0.5), (f(9), f(9))),
    ]
    call = lambda F, x, t, **k: F.cross_entropy(x, t, **k)
    out += _reductions("ce", call, f(4, 3), i(4, high=3))
    out += _reductions("ce-2d", call, f(2, 3, 5), i(2, 5, high=3))
    out += _reductions("ce-1d", call, f(3), i(high=3))
    out += _reductions("ce-prob", call, f(4, 3), p(4, 3))
    out += _reductions("ce-weight", lambda F, x, t, w, **k: F.cross_entropy(
        x, t, w.detach(), **k), f(4, 3), i(4, high=3), p(3))
    out += _reductions("ce-smooth", lambda F, x, t, **k: F.cross_entropy(
        x, t, label_smoothing=0.2, **k), f(4, 3, 2), i(4, 2, high=3))
    out += _reductions("ce-smooth-weight", lambda F, x, t, w, **k: F.cross_entropy(
        x, t, w.detach(), label_smoothing=0.2, ignore_index=1, **k), f(6, 3), i(6, high=3), p(3))
    out += _reductions("ce-ignore", lambda F, x, t, **k: F.cross_entropy(
        x, t, ignore_index=-1, **k), f(4, 3), np.array([0, -1, 2, -1]))
    out += _reductions("ce-prob-weight", lambda F, x, t, w, **k: F.cross_entropy(
        x, t, w, label_smoothing=0.1, **k), f(2, 3, 5), p(2, 3, 5), p(3))
    call = lambda F, x, t, **k: F.nll_loss(x, t, **k)
    out += _reductions("nll", call, f(4, 3), i(4, high=3))
    out += _reductions("nll-2d", call, f(2, 3, 5), i(2, 5, high=3))
    out += _reductions("nll-weight", lambda F, x, t, w, **k: F.nll_loss(
        x, t, w.detach(), ignore_index=0, **k), f(6, 3), i(6, high=3), p(3))
    out += _reductions("bce", lambda F, x, t, **k: F.binary_cross_entropy(x, t, **k),
                       p(3, 4), p(3, 4))
    out += _reductions("bce-weight", lambda F, x, t, w, **k: F.binary_cross_entropy(
        x, t, w.detach(), **k), p(3, 4), p(3, 4), p(4))
    out += _reductions("bcel", lambda F, x, t, **k: F.binary_cross_entropy_with_logits(
        x, t, **k), f(3, 4), p(3, 4))
    out += _reductions("bcel-weights", lambda F, x, t, w, q, **k:
                       F.binary_cross_entropy_with_logits(x, t, w.detach(),
                                                          pos_weight=q.detach(), **k),
                       f(3, 4), p(3, 4), p(4), p(4))
    out += _reductions("kl", lambda F, x, t, **k: F.kl_div(x, t, **k), f(3, 4), p(3, 4))
    out += [("kl-batch", lambda F, x, t: F.kl_div(x, t, reduction="batchmean", log_target=True),
             (f(3, 4), f(3, 4)))]
    out += _reductions("poisson", lambda F, x, t, **k: F.poisson_nll_loss(x, t, **k),
                       f(3, 4), f(3, 4, low=0, high=4))
    out += _reductions("poisson-full", lambda F, x, t, **k: F.poisson_nll_loss(
        x, t.detach(), log_input=False, full=True, **k), p(3, 4), f(3, 4, low=0, high=4))
    out += _reductions("gaussian", lambda F, x, t, v, **k: F.gaussian_nll_loss(x, t, v, **k),
                       f(3, 4), f(3, 4), p(3, 4))
    out += _reductions("gaussian-full", lambda F, x, t, v, **k: F.gaussian_nll_loss(
        x, t, v, full=True, **k), f(3, 4), f(3, 4), p(3, 1))
    out += _reductions("hinge", lambda F, x, t, **k: F.hinge_embedding_loss(x, t, **k),
                       f(3, 4), signs(3, 4))
    out += _reductions("soft_margin", lambda F, x, t, **k: F.soft_margin_loss(x, t, **k),
                       f(3, 4), signs(3, 4))
    out += _reductions("ranking", lambda F, x, y, t, **k: F.margin_ranking_loss(
        x, y, t, margin=0.3, **k), f(5), f(5), signs(5))
    out += _reductions("multi_margin", lambda F, x, t, **k: F.multi_margin_loss(x, t, **k),
                       f(4, 3), i(4, high=3))
    out += _reductions("multi_margin-2", lambda F, x, t, w, **k: F.multi_margin_loss(
        x, t, p=2, margin=0.7, weight=w.detach(), **k), f(4, 3), i(4, high=3), p(3))
    out += _reductions("multilabel", lambda F, x, t, **k: F.multilabel_margin_loss(x, t, **k),
                       f(2, 4), np.array([[3, 0, -1, 1], [2, -1, 0, 0]]))
    out += _reductions("multilabel-1d", lambda F, x, t, **k: F.multilabel_margin_loss(
        x, t, **k), f(4), np.array([1, 2, 3, -1]))
    out += _reductions("multilabel_soft", lambda F, x, t, w, **k:
                       F.multilabel_soft_margin_loss(x, t, w.detach(), **k),
                       f(3, 4), p(3, 4), p(4))
    out += _reductions("cosine_embedding", lambda F, x, y, t, **k: F.cosine_embedding_loss(
        x, y, t, margin=0.1, **k), f(3, 4), f(3, 4), signs(3))
    out += _reductions("triplet", lambda F, a, b, c, **k: F.triplet_margin_loss(a, b, c, **k),
                       f(3, 4), f(3, 4), f(3, 4))
    out += _reductions("triplet-swap", lambda F, a, b, c, **k: F.triplet_margin_loss(
        a, b, c, swap=True, p=1.0, margin=2.0, **k), f(3, 4), f(3, 4), f(3, 4))
    return out


ACTIVATIONS = _activations()
LAYERS = _layers()
LOSSES = _losses()


def _grads(lib, inputs, out, seed):
    wanted = [t for t in inputs if t.requires_grad]
    if not wanted or not out.requires_grad:
        return None
    return lib.autograd.grad(out, wanted, seed, allow_unused=True)


def compare(call, arrays, name, tol):
    """Value and gradients of one call against PyTorch's, within `tol`."""
    torch = pytest.importorskip("torch")
    seeds = np.random.default_rng(3)
    sides = []
    for lib, functional in ((torch, torch.nn.functional), (facula, F)):
        dtype = getattr(lib, name)
        inputs = []
        for a in arrays:
            t = lib.tensor(a.astype(name) if a.dtype.kind == "f" else a)
            inputs.append(t.requires_grad_() if a.dtype.kind == "f" else t)
        out = call(functional, *inputs)
        assert out.dtype == dtype
        if not sides:
            seed = seeds.standard_normal(tuple(out.shape)).astype(name)
        grads = _grads(lib, inputs, out, lib.tensor(seed))
        sides.append((out.detach().numpy(), grads))
    (want, want_grads), (have, have_grads) = sides
    assert want.shape == have.shape
    np.testing.assert_allclose(have, want, rtol=tol, atol=tol)
    if want_grads is None:
        return
    for k, (h, w) in enumerate(zip(have_grads, want_grads, strict=True)):
        if w is None:
            continue
        assert h is not None and tuple(h.shape) == tuple(w.shape)
        np.testing.assert_allclose(h.detach().numpy(), w.numpy(), rtol=tol, atol=tol,
                                   err_msg=f"gradient {k}")
