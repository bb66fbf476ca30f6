"""FlexAttention against attention with the same scores and mask."""

import math

import numpy as np
import pytest

import facula
from facula.nn.attention.flex_attention import (
    AuxRequest,
    and_masks,
    create_block_mask,
    create_mask,
    flex_attention,
    noop_mask,
    or_masks,
)
from facula.nn.functional import scaled_dot_product_attention
from facula.testing import assert_close


def causal(b, h, q, kv):
    return q >= kv


def window(b, h, q, kv):
    return q - kv <= 2


def heads(hq=2, hkv=2, q=5, kv=5, e=4):
    facula.manual_seed(0)
    return (facula.randn(2, hq, q, e, requires_grad=True),
            facula.randn(2, hkv, kv, e, requires_grad=True),
            facula.randn(2, hkv, kv, 3, requires_grad=True))


@pytest.mark.parametrize("mask", [None, causal, and_masks(causal, window),
                                  or_masks(causal, window), noop_mask])
def test_masks(mask):
    q, k, v = heads()
    block = None if mask is None else create_block_mask(mask, None, None, 5, 5)
    got = flex_attention(q, k, v, block_mask=block)
    dense = None if mask is None else create_mask(mask, None, None, 5, 5)
    want = scaled_dot_product_attention(q, k, v, dense)
    assert_close(got, want)
    for a, b in zip(facula.autograd.grad(got.sin().sum(), (q, k, v)),
                    facula.autograd.grad(want.sin().sum(), (q, k, v))):
        assert_close(a, b)


def test_scores_of_ones_own_and_their_gradient():
    q, k, v = heads()
    slopes = facula.tensor([0.5, 0.25], requires_grad=True)
    got = flex_attention(q, k, v, lambda s, b, h, i, j: s + slopes[h] * (j - i))
    place = facula.arange(5.0)
    bias = slopes[:, None, None] * (place[None, :] - place[:, None])
    want = scaled_dot_product_attention(q, k, v, bias)
    assert_close(got, want)
    assert_close(*(facula.autograd.grad(y.cos().sum(), slopes)[0] for y in (got, want)))


def test_documents_of_a_batch():
    q, k, v = heads()
    document = facula.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]])
    block = create_block_mask(lambda b, h, i, j: document[b, i] == document[b, j], 2, None, 5, 5)
    mask = (document[:, :, None] == document[:, None, :])[:, None]
    assert_close(flex_attention(q, k, v, block_mask=block),
                 scaled_dot_product_attention(q, k, v, mask))


def test_fewer_heads_of_keys():
    q, k, v = heads(hq=4, hkv=2)
    assert_close(flex_attention(q, k, v, enable_gqa=True, scale=0.3),
                 scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True))
    with pytest.raises(ValueError, match="enable_gqa"):
        flex_attention(q, k, v)


def test_denominators():
    q, k, v = heads(q=3, kv=6)
    out, lse = flex_attention(q, k, v, return_lse=True)
    scores = q @ k.transpose(-1, -2) / 2
    assert_close(lse, scores.logsumexp(-1))
    _, aux = flex_attention(q, k, v, return_aux=AuxRequest(max_scores=True))
    assert aux.lse is None
    assert_close(aux.max_scores, scores.amax(-1))


def test_a_query_that_sees_nothing():
    q, k, v = heads()
    block = create_block_mask(lambda b, h, i, j: (i >= j) & (i != 2), None, None, 5, 5)
    out, lse = flex_attention(q, k, v, block_mask=block, return_lse=True)
    assert out[:, :, 2].abs().sum().item() == 0
    assert lse[0, 0, 2].item() == -math.inf
    grad, = facula.autograd.grad(out.sum(), q)
    assert bool(grad.isfinite().all())


def test_block_masks_say_what_is_left_out():
    block = create_block_mask(causal, 2, 3, 200, 300, BLOCK_SIZE=100)
    assert block.shape == (2, 3, 200, 300) and block.numel() == 360000
    np.testing.assert_array_equal(block.to_dense()[0, 0].numpy(), [[1, 0, 0], [1, 1, 0]])
    assert block.sparsity() == pytest.approx(50) and "sparsity=50.00%" in repr(block)
    with pytest.raises(ValueError, match="made for 2 queries"):
        flex_attention(*heads(), block_mask=create_block_mask(causal, None, None, 2, 2))
    with pytest.raises(ValueError, match="4D"):
        flex_attention(facula.ones(2, 3), facula.ones(2, 3), facula.ones(2, 3))


def test_as_pytorch():
    torch = pytest.importorskip("torch")
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    q, k, v = heads()

    def score(s, b, h, i, j):
        return s * 0.5 + (i - j) * 0.1
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = [torch.tensor(t.detach().numpy()) for t in (q, k, v)]
        mask = flex.create_block_mask(causal, None, None, 5, 5, device="cpu")
        want = flex.flex_attention(*other, score_mod=score, block_mask=mask)
    got = flex_attention(q, k, v, score, create_block_mask(causal, None, None, 5, 5))
    np.testing.assert_allclose(got.detach().numpy(), want.numpy(), rtol=1e-5, atol=1e-6)
