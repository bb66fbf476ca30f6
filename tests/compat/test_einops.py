"""einops on facula's tensors: its operations and layers, compared with NumPy's backend."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import facula
from facula import nn

einops = pytest.importorskip("einops")

X = np.random.default_rng(3).normal(size=(2, 3, 4, 6)).astype(np.float32)

REARRANGE = [("b c h w -> b h w c", {}), ("b c h w -> (b h) (c w)", {}),
             ("b c (h p) (w q) -> b (h w) (p q c)", {"p": 2, "q": 3}), ("b ... -> ... b", {}),
             ("b c h w -> b c 1 h w", {}), ("b c (h two) w -> two (b c) h w", {"two": 2})]
REDUCE = [("b c h w -> b c", {}), ("b c (h p) (w q) -> b c h w", {"p": 2, "q": 2}),
          ("b c h w ->", {}), ("... w -> ...", {}), ("b c h w -> b 1 h w", {})]
REPEAT = [("b c h w -> b c (h 2) (w 3)", {}), ("b c h w -> b n c h w", {"n": 3}),
          ("b c h w -> r b c h (s w)", {"r": 2, "s": 2})]


def _same(got: Any, want: np.ndarray) -> None:
    assert isinstance(got, facula.Tensor) and tuple(got.shape) == want.shape
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pattern, sizes", REARRANGE)
def test_rearrange(pattern: str, sizes: dict[str, int]) -> None:
    x = facula.tensor(X, requires_grad=True)
    out = einops.rearrange(x, pattern, **sizes)
    _same(out, einops.rearrange(X, pattern, **sizes))
    out.square().sum().backward()
    _same(x.grad, 2 * X)


@pytest.mark.parametrize("reduction", ["min", "max", "sum", "mean", "prod"])
@pytest.mark.parametrize("pattern, sizes", REDUCE)
def test_reduce(pattern: str, sizes: dict[str, int], reduction: str) -> None:
    _same(einops.reduce(facula.tensor(X), pattern, reduction, **sizes),
          einops.reduce(X, pattern, reduction, **sizes))


@pytest.mark.parametrize("reduction", ["any", "all"])
def test_reduce_booleans(reduction: str) -> None:
    _same(einops.reduce(facula.tensor(X > 0), "b c h w -> c w", reduction),
          einops.reduce(X > 0, "b c h w -> c w", reduction))


@pytest.mark.parametrize("pattern, sizes", REPEAT)
def test_repeat(pattern: str, sizes: dict[str, int]) -> None:
    _same(einops.repeat(facula.tensor(X), pattern, **sizes), einops.repeat(X, pattern, **sizes))


def test_lists_and_packs() -> None:
    x = facula.tensor(X)
    _same(einops.rearrange([x, x], "n b c h w -> b n (c h w)"),
          einops.rearrange([X, X], "n b c h w -> b n (c h w)"))
    packed, shapes = einops.pack([x, x[:, 0, 0]], "b *")
    wanted, _ = einops.pack([X, X[:, 0, 0]], "b *")
    _same(packed, wanted)
    for part, whole in zip(einops.unpack(packed, shapes, "b *"), (X, X[:, 0, 0]), strict=True):
        _same(part, whole)


def test_einsum_parse_shape_and_numpy() -> None:
    x = facula.tensor(X)
    _same(einops.einsum(x, x, "b c h w, b d h w -> b c d"),
          einops.einsum(X, X, "b c h w, b d h w -> b c d"))
    assert einops.parse_shape(x, "b c _ w") == {"b": 2, "c": 3, "w": 6}
    assert isinstance(einops.asnumpy(x), np.ndarray)


def test_the_standard_namespace() -> None:
    array_api = pytest.importorskip("einops.array_api")
    x = facula.tensor(X)
    _same(array_api.reduce(x, "b c h w -> b w", "max"), X.max((1, 2)))
    _same(array_api.repeat(x, "b c h w -> b c h (w 2)"), np.repeat(X, 2, -1))


def test_errors_are_einops_own() -> None:
    with pytest.raises(einops.EinopsError, match="Shape mismatch"):
        einops.rearrange(facula.tensor(X), "b c (h p) w -> b c h p w", p=3)


def test_layers() -> None:
    from einops.layers.facula import EinMix, Rearrange, Reduce

    x = facula.tensor(X)
    model = nn.Sequential(Rearrange("b c h w -> b (h w) c"), Reduce("b n c -> b c", "mean"),
                          EinMix("b c -> b (k d)", weight_shape="c k d", bias_shape="k d",
                                 c=3, k=2, d=5))
    out = model(x)
    mix = model[2]
    want = np.einsum("bc,ckd->bkd", X.mean((2, 3)), mix.weight.detach().numpy())
    _same(out, (want + mix.bias.detach().numpy()).reshape(2, 10))
    out.sum().backward()
    assert [tuple(p.grad.shape) for p in model.parameters()] == [(3, 2, 5), (1, 2, 5)]
    assert sorted(model.state_dict()) == ["2.bias", "2.weight"]
    assert repr(model[0]) == "Rearrange('b c h w -> b (h w) c')"
    from einops._backends import get_backend
    assert get_backend(x).layers().EinMix is EinMix


@pytest.mark.parametrize("first, second", [("facula", "einops"), ("einops", "facula")])
def test_whichever_is_imported_first(first: str, second: str) -> None:
    code = (f"import {first}, sys; assert {first == 'einops'} == ('einops' in sys.modules)\n"
            f"import {second}\n"
            "print(tuple(einops.rearrange(facula.ones(2, 3), 'a b -> b a').shape))\n"
            "assert 'torch' not in sys.modules")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "(3, 2)"
