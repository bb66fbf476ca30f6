"""Random numbers: distributions, ranges, and the same numbers from the same seed everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

import facula
from facula.config import override
from facula.ops.primitive.creation import philox4x32
from facula.random import bernoulli_mask

N = 40_000


def follows(values, cdf):
    """Whether a sample may come from this law: Kolmogorov and Smirnov's test at 1e-4."""
    values = np.sort(np.asarray(values, np.float64).ravel())
    n = len(values)
    p, steps = cdf(values), np.arange(n + 1) / n
    furthest = max(np.abs(p - steps[1:]).max(), np.abs(p - steps[:-1]).max())
    return 2 * math.exp(-2 * n * furthest ** 2) > 1e-4


def even(counts):
    """Whether counts may be those of equally likely things: chi-square at 1e-4, in the normal
    approximation of Wilson and Hilferty (1931)."""
    counts = np.asarray(counts, np.float64)
    k = len(counts) - 1
    if k == 0:
        return True
    square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    return ((square / k) ** (1 / 3) - 1 + 2 / (9 * k)) / math.sqrt(2 / (9 * k)) < 3.72


def normal(x):
    return 0.5 * np.vectorize(math.erfc)(-np.asarray(x) / math.sqrt(2))


def _uniform(values, low, high):
    assert values.min() >= low and values.max() <= high
    assert follows(values, lambda x: (x - low) / (high - low))


@pytest.fixture(autouse=True)
def _seeded():
    facula.manual_seed(1234)


def test_philox_is_philox():
    # Known answer of Random123 for counter and key 0.
    words = philox4x32(np.zeros(1, np.uint64), 0)[0]
    assert [hex(int(w)) for w in words] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c",
                                            "0x9b00dbd8"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniform(dtype):
    t = facula.rand(N, dtype=getattr(facula, dtype))
    values = t.double().numpy()
    assert t.dtype is getattr(facula, dtype) and values.max() < 1 and values.min() >= 0
    assert abs(values.mean() - 0.5) < 0.01 and abs(values.var() - 1 / 12) < 0.003
    if dtype.endswith(("32", "64")):
        _uniform(values, 0, 1)
    u = facula.empty(N, dtype=getattr(facula, dtype)).uniform_(-2, 3).double().numpy()
    assert u.min() >= -2 and u.max() <= 3 and abs(u.mean() - 0.5) < 0.05


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_normal(dtype):
    t = facula.randn(N, dtype=getattr(facula, dtype)).double().numpy()
    assert np.isfinite(t).all()
    assert abs(t.mean()) < 0.02 and abs(t.var() - 1) < 0.03
    z = (np.asarray(t, np.float64) - np.mean(t, dtype=np.float64)) / np.std(t, dtype=np.float64)
    assert abs((z ** 3).mean()) < 0.05 and abs((z ** 4).mean() - 3) < 0.1
    if dtype != "float16":
        assert follows(t, normal)
    u = facula.empty(N).normal_(3, 0.5).numpy()
    assert abs(u.mean() - 3) < 0.02 and abs(u.std() - 0.5) < 0.01
    z = facula.randn(N, dtype=facula.complex64).numpy()
    assert abs((np.abs(z) ** 2).mean() - 1) < 0.03 and abs((z.real * z.imag).mean()) < 0.02


def test_normal_arguments():
    mean, std = facula.tensor([0.0, 100.0]), facula.tensor([1.0, 0.0])
    assert facula.normal(mean, std)[1].item() == 100
    assert facula.normal(0.0, 1.0, (2, 3)).shape == (2, 3)
    assert facula.normal(mean).shape == (2,) and facula.normal(5.0, std)[1].item() == 5
    assert facula.normal(mean, std.reshape(2, 1)).shape == (2, 2)
    with pytest.raises(RuntimeError, match="std"):
        facula.normal(0.0, -1.0, (2,))
    with pytest.raises(RuntimeError, match="std"):
        facula.empty(2).normal_(0, -1)


@pytest.mark.parametrize("low, high", [(0, 2), (0, 10), (-5, 5), (3, 4), (0, 65536),
                                       (0, 100_000), (-2 ** 40, 2 ** 40), (-2 ** 63, 2 ** 63 - 1)])
def test_integers(low, high):
    values = facula.randint(low, high, (N,)).numpy()
    assert values.dtype == np.int64 and values.min() >= low and values.max() < high
    assert abs(values.astype(float).mean() - (low + high - 1) / 2) < (high - low) * 0.01 + 1e-9
    if high - low <= 10:
        counts = np.bincount(values - low, minlength=high - low)
        assert even(counts)
    else:
        _uniform(values.astype(float), low, high)


def test_integer_arguments():
    assert facula.randint(5, (2, 3)).shape == (2, 3)
    assert facula.randint(high=5, size=(2,)).max().item() < 5
    assert facula.randint(1, 3, (4,), dtype=facula.float32).dtype is facula.float32
    assert facula.randint(0, 256, (N,), dtype=facula.uint8).max().item() == 255
    assert facula.randint_like(facula.zeros(3), 4).dtype is facula.float32
    with pytest.raises(RuntimeError):
        facula.randint(5, 5, (2,))
    with pytest.raises(RuntimeError):
        facula.randint(0, 300, (2,), dtype=facula.uint8)
    with pytest.raises(TypeError):
        facula.randint(5)
    for dtype, top in (("int8", 127), ("uint8", 255), ("int16", 32767), ("bool", 1),
                       ("float32", 2 ** 24), ("int64", 2 ** 63 - 1), ("float16", 2048)):
        t = facula.empty(N, dtype=getattr(facula, dtype)).random_().double().numpy()
        assert t.min() >= 0 and 0.99 * top <= t.max() <= top
    t = facula.zeros(100).random_(3, 6)
    assert set(t.tolist()) == {3.0, 4.0, 5.0}


def test_permutations():
    assert sorted(facula.randperm(1000).tolist()) == list(range(1000))
    assert facula.randperm(0).tolist() == [] and facula.randperm(1).tolist() == [0]
    assert facula.randperm(5, dtype=facula.int32).dtype is facula.int32
    assert abs(facula.randperm(1000)[:100].double().mean().item() - 499.5) < 120
    with pytest.raises(RuntimeError):
        facula.randperm(-1)


def test_bernoulli():
    p = facula.tensor([0.0, 1.0, 0.3]).expand(N, 3)
    t = facula.bernoulli(p).numpy()
    assert t[:, 0].max() == 0 and t[:, 1].min() == 1 and abs(t[:, 2].mean() - 0.3) < 0.01
    assert abs(facula.empty(N).bernoulli_(0.7).mean().item() - 0.7) < 0.01
    assert facula.empty(N, dtype=facula.int64).bernoulli_(0.5).max().item() == 1
    mask = bernoulli_mask((N,), 0.9)
    assert mask.dtype is facula.bool and abs(mask.double().mean().item() - 0.9) < 0.01
    with pytest.raises(RuntimeError):
        facula.bernoulli(facula.tensor([1.5]))
    with pytest.raises(RuntimeError):
        facula.empty(2).bernoulli_(2.0)


@pytest.mark.parametrize("draw, law", [
    (lambda t: t.exponential_(2.0), lambda x: 1 - np.exp(-2 * x)),
    (lambda t: t.cauchy_(1, 3), lambda x: 0.5 + np.arctan((x - 1) / 3) / math.pi),
    (lambda t: t.log_normal_(0.5, 0.7), lambda x: normal((np.log(x) - 0.5) / 0.7))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_distributions(draw, law, dtype):
    values = draw(facula.empty(N, dtype=getattr(facula, dtype))).numpy()
    assert np.isfinite(values).all() and follows(values, law)


def test_geometric_poisson_binomial():
    g = facula.empty(N).geometric_(0.25).numpy()
    assert g.min() == 1 and (g == np.floor(g)).all() and abs(g.mean() - 4) < 0.1
    p = facula.poisson(facula.full((N,), 3.0)).numpy()
    assert abs(p.mean() - 3) < 0.05 and abs(p.var() - 3) < 0.15
    b = facula.binomial(facula.full((N,), 10.0), facula.tensor(0.2)).numpy()
    assert abs(b.mean() - 2) < 0.05
    with pytest.raises(RuntimeError):
        facula.empty(2).geometric_(0.0)
    with pytest.raises(RuntimeError):
        facula.empty(2).exponential_(-1.0)


def test_multinomial():
    w = facula.tensor([1.0, 0.0, 3.0])
    t = facula.multinomial(w, N, replacement=True).numpy()
    counts = np.bincount(t, minlength=3) / N
    assert counts[1] == 0 and abs(counts[2] - 0.75) < 0.01
    firsts = facula.multinomial(w.expand(N // 4, 3), 2).numpy()
    assert (np.sort(firsts, 1) == [0, 2]).all() and abs((firsts[:, 0] == 2).mean() - 0.75) < 0.02
    for bad, n in ((facula.tensor([-1.0, 1]), 1), (facula.zeros(3), 1), (w, 3), (w, 0),
                   (facula.tensor([math.nan]), 1), (facula.ones(2, 2, 2), 1),
                   (facula.tensor([1, 2]), 1)):
        with pytest.raises(RuntimeError):
            facula.multinomial(bad, n)
    with pytest.raises(RuntimeError, match="int64 out"):
        facula.multinomial(w, 2, out=facula.empty(2))


# ---------------------------------------------------------------- the same from the same seed

def _all_kinds(generator=None):
    g = {"generator": generator}
    return [facula.rand(1000, **g), facula.rand(7, dtype=facula.float64, **g),
            facula.randint(100, (1001,), **g), facula.randint(10 ** 9, (5,), **g),
            facula.empty(999).bernoulli_(0.3, **g), facula.randperm(50, **g),
            facula.multinomial(facula.ones(9), 4, **g), facula.randn(1000, **g)]


def _values(tensors):
    return [t.numpy().copy() for t in tensors]


def _agree(a, b):
    """Equal; normal numbers to rounding, since logarithm and cosine are each executor's own."""
    if a.dtype == np.float32 and (a < 0).any():
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
    else:
        np.testing.assert_array_equal(a, b)


def test_same_seed_same_numbers():
    facula.manual_seed(7)
    first = _values(_all_kinds())
    second = _values(_all_kinds())
    facula.manual_seed(7)
    for a, b, c in zip(first, _values(_all_kinds()), second):
        _agree(a, b)
        assert a.size < 8 or (a != c).any()
    own = facula.Generator().manual_seed(7)
    for a, b in zip(first, _values(_all_kinds(own))):
        _agree(a, b)


def test_threads_and_executors_agree():
    before = facula.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            facula.set_num_threads(threads)
            for _ in range(4):                      # interpreted first, compiled after
                facula.manual_seed(99)
                results.append(_values([facula.rand(300, 400), facula.randint(1000, (70_000,)),
                                        facula.empty(300, 400).bernoulli_(0.5),
                                        facula.randn(300, 400)]))
        with override(JIT=False):
            facula.manual_seed(99)
            results.append(_values([facula.rand(300, 400), facula.randint(1000, (70_000,)),
                                    facula.empty(300, 400).bernoulli_(0.5),
                                    facula.randn(300, 400)]))
    finally:
        facula.set_num_threads(before)
    for result in results[1:]:
        for a, b in zip(results[0][:3], result[:3]):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(results[0][3], result[3], rtol=2e-6, atol=2e-6)
    for result in results[4:-1:4]:
        np.testing.assert_array_equal(results[3][3], result[3])


def test_states():
    state = facula.get_rng_state()
    a = facula.rand(5).tolist()
    with facula.random.fork_rng():
        facula.rand(100)
    b = facula.rand(5).tolist()
    facula.set_rng_state(state)
    assert facula.rand(5).tolist() == a and facula.rand(5).tolist() == b
    g = facula.Generator()
    assert g.initial_seed() == facula.Generator().initial_seed()
    g.manual_seed(-1)
    assert g.initial_seed() == 2 ** 64 - 1 and g.device.type == "cpu"
    assert facula.seed() == facula.initial_seed() != facula.seed()
    with pytest.raises(RuntimeError):
        facula.manual_seed(2 ** 64)
    with pytest.raises(TypeError):
        facula.set_rng_state(facula.zeros(16))
    with pytest.raises(RuntimeError):
        facula.set_rng_state(facula.zeros(3, dtype=facula.uint8))
    with pytest.raises(TypeError):
        facula.rand(3, generator=5)


def test_draws_in_a_loop_differ_and_repeat_the_program():
    seen = {tuple(facula.rand(3).tolist()) for _ in range(20)}
    assert len(seen) == 20
    x = facula.zeros(4)
    for _ in range(5):
        x += facula.rand(4)
    assert 0 < x.min().item() and x.max().item() < 5


def test_like_and_out():
    base = facula.zeros(2, 3, dtype=facula.float64)
    for fn in (facula.rand_like, facula.randn_like):
        t = fn(base)
        assert t.shape == (2, 3) and t.dtype is facula.float64
    out = facula.empty(2)
    assert facula.rand(2, out=out) is out
    assert facula.rand(2, requires_grad=True).requires_grad
    leaf = facula.zeros(2, requires_grad=True)
    with pytest.raises(RuntimeError):
        leaf.uniform_()
    with facula.no_grad():
        leaf.normal_()
    with pytest.raises(RuntimeError):
        facula.zeros(2, dtype=facula.int64).uniform_()


@pytest.mark.parametrize("draw", [
    lambda n: facula.poisson(facula.full((n,), 30.0)),
    lambda n: facula.binomial(facula.full((n,), 100.0), facula.full((n,), 0.5)),
])
def test_one_draw_after_another_has_nothing_to_do_with_it(draw):
    facula.manual_seed(0)
    x = np.array([draw(1).item() for _ in range(2000)])
    x -= x.mean()
    for lag in (1, 2, 3):
        assert abs((x[lag:] * x[:-lag]).mean() / x.var()) < 0.09        # four standard errors
    facula.manual_seed(0)
    first, second = draw(5), draw(5)
    facula.manual_seed(0)
    assert facula.equal(draw(5), first) and facula.equal(draw(5), second)
