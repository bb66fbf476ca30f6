"""PyTorch's top-level forms of `nn.functional`, called as PyTorch is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import facula
from facula import config

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(11)


def _f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def _p(*shape: int) -> np.ndarray:
    return RNG.uniform(0.1, 0.9, shape).astype(np.float32)


SIGNS = np.float32([1, -1, 1, -1])

CALLS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "conv1d": ([_f(2, 3, 8), _f(4, 3, 3)], {"padding": 1}),
    "conv2d": ([_f(2, 3, 6, 5), _f(4, 3, 3, 2), _f(4)], {}),
    "conv3d": ([_f(1, 2, 4, 4, 4), _f(3, 2, 2, 2, 2)], {}),
    "conv_transpose2d": ([_f(2, 3, 4, 4), _f(3, 2, 3, 3)], {"stride": 2}),
    "convolution": ([_f(2, 4, 6, 6), _f(4, 2, 3, 3), _f(4), [1, 1], [1, 0], [1, 1], False,
                     [0, 0], 2], {}),
    "convolution transposed": ([_f(2, 4, 6), _f(4, 3, 3), None, [2], [1], [1], True, [1], 1],
                               {}),
    "conv_tbc": ([_f(7, 2, 3), _f(3, 3, 5), _f(5), 1], {}),
    "max_pool1d": ([_f(2, 3, 9), 3, 2], {}), "max_pool2d": ([_f(2, 3, 7, 6), 2], {}),
    "max_pool3d": ([_f(1, 2, 4, 4, 4), 2, 1], {"ceil_mode": True}),
    "avg_pool1d": ([_f(2, 3, 9), 3], {}), "adaptive_avg_pool1d": ([_f(2, 3, 9), 4], {}),
    "adaptive_max_pool1d": ([_f(2, 3, 9), 4], {}),
    "embedding": ([_f(5, 3), np.array([[0, 4], [2, 2]])], {"padding_idx": 2}),
    "batch_norm": ([_f(6, 3), _f(3), _f(3), _f(3), _p(3), False, 0.1, 1e-5, False], {}),
    "instance_norm": ([_f(2, 3, 8), _f(3), _f(3), None, None, True, 0.1, 1e-5, False], {}),
    "kl_div": ([_f(3, 4), _p(3, 4), 2], {}),
    "binary_cross_entropy_with_logits": ([_f(3, 4), _p(3, 4)], {"pos_weight": _p(4)}),
    "poisson_nll_loss": ([_f(4), _p(4), True, True, 1e-8, 1], {}),
    "cosine_embedding_loss": ([_f(4, 3), _f(4, 3), SIGNS], {"margin": 0.2}),
    "hinge_embedding_loss": ([_f(4), SIGNS], {"reduction": 0}),
    "margin_ranking_loss": ([_f(4), _f(4), SIGNS, 0.5, 2], {}),
    "triplet_margin_loss": ([_f(4, 3), _f(4, 3), _f(4, 3), 0.5], {"swap": True}),
    "lstm_cell": ([_f(2, 3), (_f(2, 4), _f(2, 4)), _f(16, 3), _f(16, 4), _f(16), _f(16)], {}),
    "gru_cell": ([_f(2, 3), _f(2, 4), _f(12, 3), _f(12, 4)], {}),
    "rnn_tanh_cell": ([_f(2, 3), _f(2, 4), _f(4, 3), _f(4, 4), _f(4), _f(4)], {}),
    "rnn_relu_cell": ([_f(2, 3), _f(2, 4), _f(4, 3), _f(4, 4)], {}),
    "lstm": ([_f(5, 2, 3), (_f(2, 2, 4), _f(2, 2, 4)),
              [_f(16, 3), _f(16, 4), _f(16), _f(16)] + [_f(16, 3), _f(16, 4), _f(16), _f(16)],
              True, 1, 0.0, False, True, False], {}),
    "gru": ([_f(2, 5, 3), _f(2, 2, 4), [_f(12, 3), _f(12, 4), _f(12, 4), _f(12, 4)], False, 2,
             0.0, True, False, True], {}),
    "rnn_tanh": ([_f(5, 2, 3), _f(1, 2, 4), [_f(4, 3), _f(4, 4), _f(4), _f(4)], True, 1, 0.0,
                  False, False, False], {}),
    "rnn_relu": ([_f(5, 2, 3), _f(1, 2, 4), [_f(4, 3), _f(4, 4)], False, 1, 0.0, False, False,
                  False], {})}


def _given(value: Any, make: Any) -> Any:
    if isinstance(value, np.ndarray):
        return make(value.copy())
    if isinstance(value, (list, tuple)):
        return type(value)(_given(v, make) for v in value)
    return {k: _given(v, make) for k, v in value.items()} if isinstance(value, dict) else value


def _all(value: Any) -> list[Any]:
    return [v for v in value] if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("name", CALLS)
def test_as_pytorch(name: str) -> None:
    args, kwargs = CALLS[name]
    function = name.split()[0]
    got = getattr(facula, function)(*_given(args, facula.tensor), **_given(kwargs, facula.tensor))
    want = getattr(torch, function)(*_given(args, torch.tensor), **_given(kwargs, torch.tensor))
    assert len(_all(got)) == len(_all(want))
    for g, w in zip(_all(got), _all(want), strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-4, atol=1e-5)


def test_dropouts_in_place() -> None:
    facula.manual_seed(0)
    for name in ("dropout_", "alpha_dropout_", "feature_dropout_", "feature_alpha_dropout_"):
        x = facula.ones(4, 64, 3)
        out = getattr(facula, name)(x, 0.5, True)
        assert out is x
        values = x.numpy()
        assert len(np.unique(values)) == 2
        if "feature" in name:
            assert (values == values[..., :1]).all()
        y = facula.ones(4, 64, 3)
        assert (getattr(facula, name)(y, 0.5, False).numpy() == 1).all()
    assert set(np.unique(facula.feature_dropout(facula.ones(2, 50), 0.5, True).numpy())) == {0, 2}


def test_refusals() -> None:
    with pytest.raises(ValueError, match="valid value for reduction"):
        facula.kl_div(facula.ones(2), facula.ones(2), 3)
    with pytest.raises(RuntimeError, match="expected 4 weights"):
        facula.gru(facula.ones(1, 1, 2), facula.ones(1, 1, 2), [facula.ones(6, 2)] * 3, True, 1,
                   0.0, False, False, False)
    with pytest.raises(RuntimeError, match="3, 4 or 5 dimensions"):
        facula.convolution(facula.ones(2, 2), facula.ones(2, 2), None, 1, 0, 1, False, 0, 1)
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        facula.feature_dropout(facula.ones(3), 0.5, True)


def test_relu_lets_gradients_through_what_is_not_a_number(monkeypatch):
    """As PyTorch does: NaN is not at or below zero."""
    for interpret in (True, False):
        monkeypatch.setattr(config.flag, "INTERPRET", interpret)
        x = facula.tensor([np.nan, 1.0, -1.0, 0.0, np.inf], requires_grad=True)
        (facula.relu(x) * 2).sum().backward()
        assert x.grad.tolist() == [2.0, 2.0, 0.0, 0.0, 2.0]
