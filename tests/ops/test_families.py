"""Operations of the smaller families against PyTorch: copies, combinations, bits, masks."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula import masked
from facula.signal import windows

torch = pytest.importorskip("torch")

_RNG = np.random.default_rng(5)


def _both(array: np.ndarray) -> tuple[facula.Tensor, torch.Tensor]:
    return facula.tensor(array), torch.tensor(array)


def _same(got: object, want: object, close: bool = False) -> None:
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for a, b in zip(got, want):
            _same(a, b, close)
        return
    assert str(got.dtype).split(".")[-1] == str(want.dtype).split(".")[-1]
    if close:
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), 2e-5, 1e-6)
    else:
        np.testing.assert_array_equal(got.detach().numpy(), want.detach().numpy(), strict=True)


ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1e-310,
                2.2250738585072014e-308, 1.0, -1.0, 0.5, 3.0, 1.7976931348623157e308, -1e-300,
                np.pi])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_frexp_and_nextafter_of_odd_numbers(dtype: type) -> None:
    with np.errstate(all="ignore"):
        odd = ODD.astype(dtype)
    if dtype is not np.float16:
        a, b = _both(np.repeat(odd, len(odd))), _both(np.tile(odd, len(odd)))
        got, want = facula.nextafter(a[0], b[0]).numpy(), torch.nextafter(a[1], b[1]).numpy()
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
    x, y = _both(odd)
    mantissa, exponent = facula.frexp(x)
    finite = np.isfinite(odd)
    want_m, want_e = np.frexp(odd)
    np.testing.assert_array_equal(mantissa.numpy(), want_m)
    np.testing.assert_array_equal(exponent.numpy()[finite], want_e[finite])
    assert exponent.dtype is facula.int32


def test_gcd_lcm_of_extremes() -> None:
    values = np.array([0, 1, -1, 6, -15, 2 ** 62, 1 - 2 ** 63, 2 ** 63 - 1], np.int64)
    a, b = _both(np.repeat(values, len(values))), _both(np.tile(values, len(values)))
    _same(facula.gcd(a[0], b[0]), torch.gcd(a[1], b[1]))
    small = np.array([0, 1, -4, 6, 100], np.int16)
    a, b = _both(np.repeat(small, 5)), _both(np.tile(small, 5))
    _same(facula.lcm(a[0], b[0]), torch.lcm(a[1], b[1]))


def test_hash_tensor() -> None:
    for array in (_RNG.normal(size=(3, 7)), np.arange(12, dtype=np.int32).reshape(3, 4),
                  np.float32([1.5])):
        x, y = _both(array)
        _same(facula.hash_tensor(x), torch.hash_tensor(y))
        _same(facula.hash_tensor(x, 0, True), torch.hash_tensor(y, 0, keepdim=True))
    with pytest.raises(RuntimeError, match="reduction dim"):
        facula.hash_tensor(facula.zeros(0, 3))


def test_copies_do_not_share() -> None:
    x = facula.zeros(2, 3)
    for copy in (facula.t_copy(x), facula.view_copy(x, (6,)), facula.expand_copy(x, (4, 2, 3)),
                 facula.narrow_copy(x, 1, 0, 2), facula.unbind_copy(x)[0], facula.alias_copy(x)):
        copy.fill_(1.0)
    assert not x.numpy().any()


def test_resize() -> None:
    x, y = _both(np.arange(6.0))
    _same(x.resize_(2, 2), y.resize_(2, 2))
    assert facula.zeros(2).resize_(3, 2).shape == (3, 2)
    with pytest.raises(RuntimeError, match="require grad"):
        facula.ones(2, requires_grad=True).resize_(3)


@pytest.mark.parametrize("shape,wrap", [((3, 4), False), ((7, 3), True), ((9, 2), True),
                                        ((3, 3, 3), False)])
def test_fill_diagonal(shape: tuple[int, ...], wrap: bool) -> None:
    _same(facula.zeros(shape).fill_diagonal_(2.0, wrap), torch.zeros(shape).fill_diagonal_(2, wrap))


def test_calculus() -> None:
    array = _RNG.normal(size=(4, 6)).astype(np.float32)
    x, y = _both(array)
    _same(facula.gradient(x, spacing=[0.5, 2.0], edge_order=2),
          torch.gradient(y, spacing=[0.5, 2.0], edge_order=2), True)
    at = np.cumsum(_RNG.uniform(0.1, 1, 6)).astype(np.float32)
    for order in (1, 2):
        _same(facula.gradient(x, spacing=[facula.tensor(at)], dim=1, edge_order=order),
              torch.gradient(y, spacing=[torch.tensor(at)], dim=1, edge_order=order), True)
    _same(facula.trapezoid(x, facula.tensor(at)), torch.trapezoid(y, torch.tensor(at)), True)
    _same(facula.cumulative_trapezoid(x, dx=0.3, dim=0),
          torch.cumulative_trapezoid(y, dx=0.3, dim=0), True)
    _same(facula.trapezoid(x[:, :0]), torch.trapezoid(y[:, :0]))


def test_combinations_and_blocks() -> None:
    a, b = _both(np.arange(3)), _both(np.array([7, 9]))
    _same(facula.cartesian_prod(a[0], b[0]), torch.cartesian_prod(a[1], b[1]))
    for r in (1, 2, 4):
        for again in (False, True):
            _same(facula.combinations(a[0], r, again), torch.combinations(a[1], r, again))
    _same(facula.block_diag(a[0], b[0].reshape(2, 1)), torch.block_diag(a[1], b[1].reshape(2, 1)))
    flat = _both(np.array([[22, 41], [37, 0]]))
    _same(facula.unravel_index(flat[0], (7, 6)), torch.unravel_index(flat[1], (7, 6)))
    _same(facula.nonzero_static(a[0], size=5), torch.nonzero_static(a[1], size=5))


def test_quantile_passes_a_gradient_to_q() -> None:
    array = _RNG.normal(size=(4, 9))
    q = np.array([0.1, 0.77])
    x, y = facula.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    p, r = facula.tensor(q, requires_grad=True), torch.tensor(q, requires_grad=True)
    facula.quantile(x, p, 1).sum().backward()
    torch.quantile(y, r, 1).sum().backward()
    _same(x.grad, y.grad, True)
    _same(p.grad, r.grad, True)


@pytest.mark.parametrize("mode,kwargs", [
    ("nearest", {"size": (3, 9)}), ("nearest-exact", {"scale_factor": (1.7, 0.6)}),
    ("bilinear", {"size": (3, 9), "align_corners": True}), ("bilinear", {"scale_factor": 1.7}),
    ("bicubic", {"size": (8, 3)}), ("area", {"size": (2, 4)}),
    ("bilinear", {"size": (2, 3), "antialias": True}),
    ("bicubic", {"size": (2, 9), "antialias": True})])
def test_interpolate(mode: str, kwargs: dict) -> None:
    x, y = _both(_RNG.normal(size=(2, 3, 5, 7)).astype(np.float32))
    _same(F.interpolate(x, mode=mode, **kwargs),
          torch.nn.functional.interpolate(y, mode=mode, **kwargs), True)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample(mode: str, padding: str) -> None:
    x, y = _both(_RNG.normal(size=(2, 3, 5, 7)))
    g, h = _both(_RNG.uniform(-2.5, 2.5, size=(2, 4, 3, 2)))
    for align in (False, True):
        _same(F.grid_sample(x, g, mode, padding, align),
              torch.nn.functional.grid_sample(y, h, mode, padding, align), True)


def test_unfold_and_fold_are_each_others_transpose() -> None:
    x, y = _both(_RNG.normal(size=(2, 3, 6, 5)))
    for options in ({}, {"dilation": 2, "padding": (1, 2)}, {"stride": (2, 1)}):
        got = F.unfold(x, (2, 3), **options)
        _same(got, torch.nn.functional.unfold(y, (2, 3), **options))
        _same(F.fold(got, (6, 5), (2, 3), **options), torch.nn.functional.fold(
            torch.nn.functional.unfold(y, (2, 3), **options), (6, 5), (2, 3), **options), True)


def test_ctc_loss_through_log_softmax() -> None:
    logits = _RNG.normal(size=(9, 2, 4))
    x, y = facula.tensor(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
    target = np.array([[1, 1, 3], [2, 0, 0]])
    lengths, counts = (9, 6), (3, 1)
    for reduction in ("mean", "sum", "none"):
        a = F.ctc_loss(facula.log_softmax(x, 2), facula.tensor(target), lengths, counts,
                       reduction=reduction)
        b = torch.nn.functional.ctc_loss(torch.log_softmax(y, 2), torch.tensor(target), lengths,
                                         counts, reduction=reduction)
        _same(a, b, True)
        x.grad = y.grad = None
        a.sum().backward()
        b.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), 1e-6, 1e-9)
    assert F.ctc_loss(facula.log_softmax(x, 2)[:2], facula.tensor(target), (2, 2), counts,
                      zero_infinity=True, reduction="none")[0].item() == 0


def test_masked_rows_without_elements() -> None:
    x, y = _both(_RNG.normal(size=(3, 4)).astype(np.float32))
    m, n = _both(np.array([[True, False, True, True], [False] * 4, [True] * 4]))
    for name in ("sum", "prod", "amax", "amin", "mean", "logsumexp", "norm"):
        _same(getattr(masked, name)(x, dim=1, mask=m),
              getattr(torch.masked, name)(*((y, 2.0) if name == "norm" else (y,)), dim=1, mask=n),
              True)
    _same(masked.softmax(x, 1, mask=m), torch.masked.softmax(y, 1, mask=n), True)
    _same(masked.median(x, 1, mask=m), torch.masked.median(y, 1, mask=n), True)


def test_windows() -> None:
    for name in windows.__all__:
        kwargs = {"a": [0.4, 0.5, 0.1]} if name == "general_cosine" else {}
        for m in (0, 1, 2, 9):
            for sym in (True, False):
                _same(getattr(windows, name)(m, sym=sym, **kwargs),
                      getattr(torch.signal.windows, name)(m, sym=sym, **kwargs), True)


def test_operands_that_are_no_tensors() -> None:
    x = facula.ones(2)
    for call in (lambda: facula.maximum(x, 2), lambda: facula.eq(1, x), lambda: facula.polar(1, 2),
                 lambda: facula.logical_and(x, 1), lambda: facula.gcd(x, 2)):
        with pytest.raises(TypeError, match="must be Tensor, not int"):
            call()
