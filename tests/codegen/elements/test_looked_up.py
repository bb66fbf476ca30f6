"""Elements that are looked up, in the loops of what follows: vectors, and every index checked."""

import numpy as np
import pytest

import facula
from facula.codegen.llvm import SINGLY
from facula.nn import functional as F
from facula.runtime import jit

RNG = np.random.default_rng(0)


def _gelu(x):
    from math import erf, sqrt
    return x * 0.5 * (1 + np.vectorize(erf)(x / sqrt(2)))


LOOK_UPS = {
    "rows": (lambda x, i: facula.index_select(x, 0, i[0]), lambda x, i: x[i[0]]),
    "columns": (lambda x, i: facula.index_select(x, 1, i[0]), lambda x, i: x[:, i[0]]),
    "negative": (lambda x, i: x[i[0] - len(x)], lambda x, i: x[i[0]]),
    "pairs": (lambda x, i: x[i, i.T], lambda x, i: x[i, i.T]),
    "along": (lambda x, i: facula.gather(x, 1, i), lambda x, i: np.take_along_axis(x, i, 1)),
    "down": (lambda x, i: facula.gather(x, 0, i), lambda x, i: np.take_along_axis(x, i, 0)),
    "turned": (lambda x, i: x[i[0]].T, lambda x, i: x[i[0]].T),
}
CHAINS = {
    "scaled": (lambda v: v * 2 + 1, lambda v: v * 2 + 1),
    "gelu": (F.gelu, _gelu),
    "over columns": (lambda v: (v * 2).sum(1), lambda v: (v * 2).sum(1)),
    "over rows": (lambda v: (v * 2).sum(0), lambda v: (v * 2).sum(0)),
    "softmax": (lambda v: F.softmax(v, 1),
                lambda v: np.exp(v) / np.exp(v).sum(1, keepdims=True)),
}


@pytest.mark.parametrize("size", [1, 37])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("way", LOOK_UPS)
def test_values(way, chain, size):
    values = RNG.standard_normal((size, size)).astype(np.float32)
    places = RNG.integers(0, size, (size, size))
    (look, looked), (ours, theirs) = LOOK_UPS[way], CHAINS[chain]
    want = theirs(looked(values.astype(np.float64), places))
    x, i = facula.tensor(values), facula.tensor(places)
    for _ in range(3):                      # interpreted, then compiled
        np.testing.assert_allclose(ours(look(x, i)).numpy(), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("place", [0, 64, 99])
@pytest.mark.parametrize("bad", [100, -1, -(1 << 63)])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_index_out_of_range_anywhere(axis, bad, place):
    x = facula.tensor(RNG.standard_normal((100, 100)).astype(np.float32))
    good = np.arange(100)
    wrong = good.copy()
    wrong[place] = bad

    def run(index):
        return F.gelu(facula.index_select(x, axis, facula.tensor(index)) * 2).numpy()

    for _ in range(3):
        want = run(good)
    with pytest.raises(IndexError):
        run(wrong)
    np.testing.assert_array_equal(run(good), want)


@pytest.mark.parametrize("way", ["along", "columns", "rows"])
def test_gradients_of_what_is_looked_up(way):
    def one(x):
        i = facula.tensor(np.arange(48 * 48).reshape(48, 48) * 7 % 48)
        return (F.gelu(LOOK_UPS[way][0](x, i)) * 0.5).sum()

    values = RNG.standard_normal((48, 48))
    for _ in range(3):
        x = facula.tensor(values, requires_grad=True)
        one(x).backward()
    step = 1e-6
    for a, b in [(0, 0), (5, 47), (47, 17)]:
        up, down = values.copy(), values.copy()
        up[a, b] += step
        down[a, b] -= step
        with facula.no_grad():
            slope = (one(facula.tensor(up)) - one(facula.tensor(down))).item() / (2 * step)
        assert abs(x.grad[a, b].item() - slope) < 1e-7


@pytest.mark.parametrize("way", ["along", "columns", "rows", "turned"])
def test_they_are_vectors(way, monkeypatch):
    """What follows a look-up is computed on vectors, whatever was looked up."""
    if not jit.host().triple.startswith("x86"):
        pytest.skip("looks at what becomes of x86's vectors")
    texts = []
    compiled = jit._object_for
    monkeypatch.setattr(jit, "_object_for", lambda item: texts.append(item[1]) or compiled(item))
    rows = 311
    x = facula.tensor(RNG.standard_normal((rows, rows)).astype(np.float32))
    i = facula.tensor(RNG.integers(0, rows, (rows, rows)))
    monkeypatch.setattr(jit, "cache", type("", (), {
        "key_of": jit.cache.key_of, "load": lambda key: None, "store": lambda key, data: None}))
    for _ in range(3):
        (F.gelu(LOOK_UPS[way][0](x, i)) * 1.25).numpy()
    chains = [t for t in texts if t.startswith(SINGLY)]
    assert chains
    assert all("fmul contract <" in jit.assembly(t, optimised_ir=True) for t in chains)
