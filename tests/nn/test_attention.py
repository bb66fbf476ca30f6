"""Attention and Transformers against PyTorch's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import facula
from facula import nn
from tests.schedule.programs import largest_arena

RNG = np.random.default_rng(3)


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def both(lib_call, arrays, tol=2e-5):
    """Run `lib_call(lib, *tensors)` in both libraries; results and gradients must agree."""
    torch = pytest.importorskip("torch")
    found = []
    for lib in (torch, facula):
        xs = [lib.tensor(a) for a in arrays]
        for x in xs:
            if x.dtype == lib.float32:
                x.requires_grad_()
        out = lib_call(lib, *xs)
        outs = [o for o in (out if isinstance(out, tuple) else (out,)) if o is not None]
        sum((o * o).sum() for o in outs).backward()
        found.append([o.detach().numpy() for o in outs]
                     + [x.grad.numpy() for x in xs if x.dtype == lib.float32])
    for want, have in zip(*found, strict=True):
        np.testing.assert_allclose(have, want, rtol=tol * 10, atol=tol)


def same_state(torch_module, module):
    assert list(module.state_dict()) == list(torch_module.state_dict())
    module.load_state_dict({k: facula.tensor(v.numpy())
                            for k, v in torch_module.state_dict().items()})


@pytest.mark.parametrize("kw", [{}, {"is_causal": True}, {"scale": 0.3}, {"mask": "bool"},
                                {"mask": "float"}])
def test_scaled_dot_product_attention(kw):
    mask = kw.pop("mask", None)
    arrays = [draw(2, 3, 4, 6), draw(2, 3, 5, 6), draw(2, 3, 5, 2)]
    if mask == "bool":
        keep = RNG.random((4, 5)) < 0.6
        keep[1] = False                     # a query that may look at nothing
        arrays.append(keep)
    elif mask == "float":
        arrays.append(draw(2, 1, 4, 5))
    both(lambda lib, *xs: lib.nn.functional.scaled_dot_product_attention(*xs, **kw), arrays)


def test_grouped_heads():
    arrays = [draw(2, 4, 3, 6), draw(2, 2, 5, 6), draw(2, 2, 5, 6)]
    both(lambda lib, *xs: lib.nn.functional.scaled_dot_product_attention(*xs, enable_gqa=True),
         arrays)


def test_dropped_shares():
    q, k, v = (facula.ones(2, 3, 4) for _ in range(3))
    out = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=1.0)
    assert (out.numpy() == 0).all()


def test_attention_errors():
    torch = pytest.importorskip("torch")
    for lib in (torch, facula):
        f = lib.nn.functional.scaled_dot_product_attention
        x = lib.ones(2, 3, 4)
        with pytest.raises(RuntimeError, match="at least 2"):
            f(lib.ones(3), lib.ones(3), lib.ones(3))
        with pytest.raises(RuntimeError, match="same dtype"):
            f(x, x, x.double())
        with pytest.raises(RuntimeError, match="attn_mask"):
            f(x, x, x, lib.ones(3, 3), is_causal=True)
        with pytest.raises(ValueError, match="greater than 0"):
            lib.nn.MultiheadAttention(0, 1)
        with pytest.raises(AssertionError, match="divisible"):
            lib.nn.MultiheadAttention(5, 2)
        m = lib.nn.MultiheadAttention(4, 2)
        with pytest.raises(AssertionError, match="query should be"):
            m(x[0, 0], x[0, 0], x[0, 0])
        with pytest.raises(RuntimeError, match="2D attn_mask"):
            m(x, x, x, attn_mask=lib.ones(5, 5))
        with pytest.raises(RuntimeError, match="Need attn_mask"):
            m(x, x, x, is_causal=True)


CASES = {
    "plain": ({}, {}), "no-bias": ({"bias": False}, {"need_weights": False}),
    "first": ({"batch_first": True}, {"average_attn_weights": False}),
    "kv": ({"add_bias_kv": True, "add_zero_attn": True}, {"mask": True, "padding": True}),
    "apart": ({"kdim": 3, "vdim": 5}, {"mask": True}),
    "padding": ({}, {"padding": True, "need_weights": False}),
    "causal": ({}, {"causal": True, "need_weights": False}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batched", [True, False])
def test_multihead_attention(name, batched):
    torch = pytest.importorskip("torch")
    made, kw = CASES[name]
    kw = dict(kw)
    modules = {lib: lib.nn.MultiheadAttention(4, 2, **made) for lib in (torch, facula)}
    assert repr(modules[facula]) == repr(modules[torch])
    same_state(modules[torch], modules[facula])
    shape = ((2,) if batched else ())
    k, v = made.get("kdim", 4), made.get("vdim", 4)
    first = made.get("batch_first") and batched
    arrays = [draw(*((2, n) if first else (n, *shape)), w) for n, w in ((3, 4), (5, k), (5, v))]
    padding = RNG.random((2, 5) if batched else 5) < 0.3
    padding[..., 0] = False
    mask = draw(3, 5) > 1.5
    mask[:, 0] = False
    use = {"padding": kw.pop("padding", False), "mask": kw.pop("mask", False)}
    causal = kw.pop("causal", False)
    if causal:
        mask, use["mask"] = np.triu(np.ones((3, 5), bool), 1), True

    def call(lib, q, key, val):
        extra = {"is_causal": True} if causal else {}
        if use["mask"]:
            extra["attn_mask"] = lib.tensor(mask)
        if use["padding"]:
            extra["key_padding_mask"] = lib.tensor(padding)
        return modules[lib](q, key, val, **extra, **kw)

    both(call, arrays)
    for (key, p), q in zip(modules[torch].named_parameters(), modules[facula].parameters(),
                           strict=True):
        np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-3, atol=5e-5,
                                   err_msg=key)


@pytest.mark.parametrize("kw", [{}, {"norm_first": True, "batch_first": True},
                                {"activation": "gelu", "bias": False}])
def test_transformer(kw):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = {lib: lib.nn.Transformer(4, 2, 2, 1, 8, 0.0, **kw) for lib in (torch, facula)}
    assert repr(modules[facula]) == repr(modules[torch])
    same_state(modules[torch], modules[facula])
    first = kw.get("batch_first", False)
    src, tgt = (draw(*((2, n) if first else (n, 2)), 4) for n in (5, 3))

    def call(lib, a, b):
        mask = lib.nn.Transformer.generate_square_subsequent_mask(3)
        padding = lib.tensor(np.array([[False] * 5, [False] * 3 + [True] * 2]))
        return modules[lib](a, b, tgt_mask=mask, src_key_padding_mask=padding,
                            memory_key_padding_mask=padding)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both(call, [src, tgt], tol=1e-4)


def test_transformer_errors():
    torch = pytest.importorskip("torch")
    for lib in (torch, facula):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            m = lib.nn.Transformer(4, 2, 1, 1, 8)
        with pytest.raises(RuntimeError, match="batch number"):
            m(lib.ones(3, 2, 4), lib.ones(3, 1, 4))
        with pytest.raises(RuntimeError, match="feature number"):
            m(lib.ones(3, 2, 5), lib.ones(3, 2, 4))
        with pytest.raises(RuntimeError, match="relu/gelu"):
            lib.nn.TransformerEncoderLayer(4, 2, activation="tanh")


# ---------------------------------------------------------------- scores that stay in tiles

def numpy_attention(q, k, v, mask=None, causal=False, scale=None):
    """In float64, with the scores in memory."""
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    scores = np.einsum("...ie,...je->...ij", q, k, dtype=np.float64) * scale
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    top = scores.max(-1, keepdims=True)
    shares = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = shares.sum(-1, keepdims=True)
    return shares / np.where(total, total, 1) @ v


@pytest.mark.parametrize("rows, keys, width, deep", [(64, 64, 32, 32), (33, 70, 5, 17),
                                                     (90, 20, 1, 1)])
@pytest.mark.parametrize("kw", ["", "causal", "bool", "float"])
def test_tiles_against_numpy(rows, keys, width, deep, kw):
    q, k, v = draw(2, 3, rows, width), draw(2, 3, keys, width), draw(2, 3, keys, deep)
    mask = None
    if kw == "bool":
        mask = RNG.random((2, 1, rows, keys)) < 0.5
        mask[0, 0, 1] = False               # a query that may look at nothing gives 0
    elif kw == "float":
        mask = np.where(RNG.random((rows, keys)) < 0.3, -np.inf, draw(rows, keys)).astype("f")
        mask[0] = -np.inf
    out = nn.functional.scaled_dot_product_attention(
        *map(facula.tensor, (q, k, v)), None if mask is None else facula.tensor(mask),
        is_causal=kw == "causal")
    np.testing.assert_allclose(out.numpy(), numpy_attention(q, k, v, mask, kw == "causal"),
                               rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kw", [{}, {"is_causal": True}, {"scale": 0.3}, {"mask": "bool"},
                                {"mask": "float"}])
def test_tiles_against_torch(kw):
    mask = kw.pop("mask", None)
    arrays = [draw(2, 3, 40, 24), draw(2, 3, 70, 24), draw(2, 3, 70, 9)]
    if mask == "bool":
        keep = RNG.random((40, 70)) < 0.6
        keep[1] = False
        arrays.append(keep)
    elif mask == "float":
        arrays.append(draw(2, 1, 40, 70))       # and its gradient is wanted
    both(lambda lib, *xs: lib.nn.functional.scaled_dot_product_attention(*xs, **kw), arrays)


def test_heads_of_one_projection():
    """Queries, keys and values are views of one tensor, the result of another."""
    def attend(lib, x):
        q, k, v = (t.view(2, 40, 4, 8).transpose(1, 2) for t in x.split(32, dim=2))
        out = lib.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.transpose(1, 2).reshape(2, 40, 32)
    both(attend, [draw(2, 40, 96)])


def test_tiles_of_grouped_heads():
    arrays = [draw(2, 6, 40, 8), draw(2, 2, 30, 8), draw(2, 2, 30, 5)]
    keep = RNG.random((2, 6, 40, 30)) < 0.7
    for mask in ([], [keep], [keep[:, :1]], [keep[0, 0]]):
        both(lambda lib, q, k, v, *m: lib.nn.functional.scaled_dot_product_attention(
            q, k, v, *m, enable_gqa=True), [*arrays, *mask])


@pytest.mark.parametrize("shape", [(0, 3, 16, 4), (2, 3, 0, 4), (2, 1, 16, 0)])
def test_nothing_to_attend(shape):
    x = facula.ones(*shape, requires_grad=True)
    out = nn.functional.scaled_dot_product_attention(x, x, x)
    assert out.shape == shape
    out.sum().backward()
    assert x.grad.shape == shape


def test_no_keys_give_nothing():
    q = facula.ones(2, 16, 4, requires_grad=True)
    out = nn.functional.scaled_dot_product_attention(q, facula.ones(2, 0, 4), facula.ones(2, 0, 3))
    assert out.shape == (2, 16, 3) and not out.detach().numpy().any()
    out.sum().backward()
    assert not q.grad.numpy().any()


@pytest.mark.parametrize("causal", [False, True])
def test_derivatives_by_differences(causal):
    def make(*shape):
        return facula.tensor(draw(*shape).astype(np.float64), requires_grad=True)

    def attend(*xs):
        return nn.functional.scaled_dot_product_attention(*xs, is_causal=causal)

    inputs = make(1, 9, 3), make(1, 10, 3), make(1, 10, 2)
    assert facula.autograd.gradcheck(attend, inputs)
    assert facula.autograd.gradgradcheck(attend, inputs)


def test_forward_derivatives_and_batches():
    q, k, v, t = (facula.tensor(draw(3, 2, 16, 8)) for _ in range(4))

    def attend(a, b, c):
        return nn.functional.scaled_dot_product_attention(a, b, c, is_causal=True)

    many = facula.func.vmap(attend)(q, k, v)
    np.testing.assert_allclose(many.numpy(), attend(q, k, v).numpy(), rtol=1e-5, atol=1e-6)
    shared = facula.func.vmap(attend, in_dims=(0, None, 0))(q, k[0], v)
    np.testing.assert_allclose(shared[2].numpy(), attend(q[2], k[0], v[2]).numpy(), rtol=1e-5,
                               atol=1e-6)
    out, tangent = facula.func.jvp(attend, (q, k, v), (t, t, t))
    _, back = facula.func.vjp(attend, q, k, v)
    weight = facula.tensor(draw(*out.shape))
    np.testing.assert_allclose((tangent * weight).sum().item(),
                               sum((g * t).sum() for g in back(weight)).item(), rtol=1e-3)


def test_memory_of_a_transformer_is_linear_in_its_context():
    """The temporaries of a training step, as planned: four times the context, four times as much.
    """
    def arena(context):
        facula.manual_seed(1)
        project, out = nn.Linear(16, 48), nn.Linear(16, 16)
        x = facula.randn(1, context, 16)

        def step():
            h = x
            for _ in range(2):
                q, k, v = (t.view(1, context, 2, 8).transpose(1, 2) for t in
                           project(h).split(16, dim=2))
                y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
                h = h + out(y.transpose(1, 2).reshape(1, context, 16))
            h.square().mean().backward()
        return largest_arena(step)

    small, large = arena(256), arena(1024)
    assert large < 4.2 * small + 100_000
    assert large < 2 * 1024 * 1024 * 4          # less than the scores of one layer


PAIRS = [((2, 3, 65, 65, 32, 32), {"is_causal": True}), ((1, 2, 200, 133, 64, 64), {}),
         ((8, 2, 70, 63, 16, 48), {"mask": "bool"}), ((2, 1, 7, 33, 8, 6), {"mask": "float"}),
         ((9, 1, 129, 127, 64, 2), {"is_causal": True, "scale": 0.3}),
         ((1, 1, 1, 5, 2, 4), {"scale": -0.2}), ((3, 2, 64, 1, 10, 10), {}),
         ((2, 2, 31, 40, 7, 9), {}), ((4, 2, 130, 67, 512, 32), {"is_causal": True})]


@pytest.mark.parametrize("sizes,options", PAIRS, ids=str)
@pytest.mark.parametrize("side_by_side", [False, True])
def test_bfloat16_is_rounded_and_no_more(monkeypatch, sizes, options, side_by_side):
    """Odd numbers of rows and columns, too, and heads that lie in each other's rows."""
    monkeypatch.setattr(facula.config.flag, "INTERPRET", 0)
    n, h, s, t, wide, deep = sizes
    options = dict(options)
    mask = options.pop("mask", None)
    given = [draw(n, h, a, b) for a, b in ((s, wide), (t, wide), (t, deep), (s, deep))]
    if mask == "bool":
        keep = RNG.random((s, t)) < 0.6
        keep[1] = False
        options["attn_mask"] = facula.tensor(keep)
    found = []
    for dtype in (facula.bfloat16, facula.float64):
        if mask == "float":
            added = np.random.default_rng(1).standard_normal((s, t)).astype(np.float32)
            options["attn_mask"] = facula.tensor(added).bfloat16().to(dtype)
        q, k, v, g = (facula.tensor(x).bfloat16().to(dtype) for x in given)
        if side_by_side:
            q, k, v, g = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, g))
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, **options)
        y.backward(g)
        found.append([x.detach().double().numpy() for x in (y, q.grad, k.grad, v.grad)])
    for have, want in zip(*found, strict=True):
        assert np.isfinite(have).all()
        assert np.linalg.norm(have - want) <= 5e-3 * np.linalg.norm(want) + 1e-12
