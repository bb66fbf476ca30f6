"""Operations on lists of tensors against one after the other, and against PyTorch's."""

import numpy as np
import pytest

import facula
from facula.ops.foreach import FOREACH


def lists(of, *shapes):
    rng = np.random.default_rng(0)
    return [[of.tensor(rng.uniform(0.2, 0.9, s).astype("f")) for s in ((2, 3), (4,), ())]
            for _ in range(3)]


def call(of, name):
    """What the function returns, or what it leaves in its first argument."""
    a, b, c = lists(of)
    base = name.rstrip("_")
    fn = getattr(of, f"_foreach_{name}")
    more = {"addcmul": (b, c, 0.5), "addcdiv": (b, c, [0.5, 1.0, 2.0]), "lerp": (b, 0.3),
            "pow": (2.0,), "copy": (b,)}
    if base in more:
        out = fn(a, *more[base])
    elif base in ("add", "sub", "mul", "div", "maximum", "minimum", "clamp_min", "clamp_max"):
        out = fn(a, b)
    else:
        out = fn(a)
    return a if name.endswith("_") else out


@pytest.mark.parametrize("name", sorted(FOREACH))
def test_as_pytorch(name):
    torch = pytest.importorskip("torch")
    for got, want in zip(call(facula, name), call(torch, name)):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-5, atol=1e-6)


def test_numbers_lists_of_numbers_and_alpha():
    a, b, _ = lists(facula)
    assert facula.equal(facula._foreach_mul(a, 2.0)[1], a[1] * 2)
    assert facula.equal(facula._foreach_mul(a, [1.0, 2.0, 3.0])[2], a[2] * 3)
    assert facula.equal(facula._foreach_add(a, b, alpha=2)[0], a[0] + 2 * b[0])
    assert facula.equal(facula._foreach_pow(2.0, a)[1], 2.0 ** a[1])
    assert facula.equal(facula._foreach_norm(a, 1)[1], a[1].abs().sum())
    before = a[1].clone()
    facula._foreach_add_(a, b, alpha=-1)
    assert facula.equal(a[1], before - b[1])
    facula._foreach_zero_(a)
    assert a[0].abs().sum().item() == 0


def test_lists_of_other_lengths():
    a, b, _ = lists(facula)
    with pytest.raises(RuntimeError, match="same number"):
        facula._foreach_add(a, b[:2])
    with pytest.raises(AttributeError, match="_foreach_nosuch"):
        facula._foreach_nosuch
