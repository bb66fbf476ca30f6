"""Hessian and Gauss-Newton products of every operation in the registry, on its samples.

Against central differences of facula's own gradients and results, and against dense Hessians
from PyTorch where it has the operation under the same name and takes the same arguments.
"""

from __future__ import annotations

import warnings
import zlib

import numpy as np
import pytest

import facula
import facula.nn.functional
from facula.curvature import GaussNewtonOperator, HessianOperator
from facula.ops.define import OPS
from tests.fuzz.graphs import fresh_recorder

try:
    import torch
except ImportError:
    torch = None

@pytest.fixture(autouse=True)
def interpreted():
    """Two programs for every sample would take minutes to compile; test_operators compiles.

    Nor is anything gained by remembering what each of them recorded.
    """
    with fresh_recorder(JIT=False):
        yield


STEP = 1e-5
TOLERANCE = 1e-5

CHOICE = {"linalg.eigh", "linalg.svd"}
"""Results that are defined up to a sign or a phase: the loss below is no function of the input."""

CONVENTION = {"cholesky_inverse", "cholesky_solve", "cholesky", "linalg.cholesky",
              "linalg.eigvalsh"}
"""One triangle is read, and as in PyTorch the gradient is that of the whole matrix."""

UNLIKE = {"cholesky_inverse", "cholesky_solve", *CHOICE, "as_strided_scatter"}
"""The same two kinds, where PyTorch has made another choice; and one whose second derivative in
PyTorch 2.13 is not the derivative of its first (by differences of PyTorch's own gradient)."""


def maker(seed, found):
    """`make` for samples: float64 leaves, away from zero and from each other."""
    rng = np.random.default_rng(seed)

    def make(*shape, dtype=None, low=None, high=None, requires_grad=None):
        n = int(np.prod(shape))
        kind = facula.float64 if dtype is None else dtype
        if kind.kind in "fc":
            a, b = (-2.0, 2.0) if low is None and high is None else (
                low if low is not None else high - 4.0, high if high is not None else low + 4.0)
            # One value in each of n cells, shuffled: none equal, none on a border.
            grid = (np.arange(n) + rng.uniform(0.3, 0.7, n)) / max(n, 1)
            values = (a + (b - a) * rng.permutation(grid)).reshape(shape)
            if kind.kind == "c":
                values = values + 1j * rng.normal(size=shape)
                return facula.tensor(values)
            t = facula.tensor(values).requires_grad_()
            found.append(t)
            return t
        if kind is facula.bool:
            return facula.tensor(rng.random(shape) < 0.5)
        return facula.tensor(rng.integers(0 if low is None else low, 4 if high is None else high,
                                          shape).astype(kind.np))
    return make


def outputs_of(value):
    """The floating results of a call, complex ones as pairs."""
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in outputs_of(v)]
    if not isinstance(value, facula.Tensor) or not value.requires_grad:
        return []
    if value.dtype.is_complex:
        return [facula.view_as_real(value)]
    return [value]


def weights(k, shape):
    return (np.random.default_rng(k).normal(size=shape),
            np.random.default_rng(k + 50).uniform(0.5, 1.5, shape))


def loss_of(outs):
    """A smooth function of the results, of which half is linear and half is quadratic."""
    total = 0.0
    for k, z in enumerate(outs):
        a, b = (facula.tensor(w) for w in weights(k, tuple(z.shape)))
        total = total + (a * z).sum() + 0.5 * (b * z * z).sum()
    return total


def cases(name):
    """(operation, sample arguments, the leaves among them), for each sample that is usable."""
    record = OPS[name]
    count = len(record.samples(maker(0, [])))
    for k in range(count):
        found = []
        args, kwargs = record.samples(maker(zlib.crc32(name.encode()) % 1000, found))[k]
        args, kwargs = fresh(args), fresh(kwargs)
        used = [t for t in leaves_in((args, kwargs)) if t.requires_grad and t.numel()]
        if used and sum(t.numel() for t in used) <= 120:
            yield k, record.fn, args, kwargs, used


def fresh(value):
    """A sample's arguments with what was computed from leaves made leaves themselves."""
    if isinstance(value, facula.Tensor):
        if value.requires_grad and not value.is_leaf and value.dtype.kind == "f":
            return value.detach().clone().requires_grad_()
        return value
    if isinstance(value, dict):
        return {k: fresh(v) for k, v in value.items()}
    return type(value)(fresh(v) for v in value) if type(value) in (list, tuple) else value


def leaves_in(value):
    if isinstance(value, facula.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        out = []
        for v in value:
            for t in leaves_in(v):
                if not any(t is o for o in out):
                    out.append(t)
        return out
    return []


UNUSED = {"allow_unused": True, "materialize_grads": True}


def joined(tensors):
    return facula.cat([t.reshape(-1) for t in tensors])


def flat(tensors):
    return np.concatenate([t.detach().numpy().reshape(-1) for t in tensors])


def at(leaves, values, fn):
    """`fn()` with the leaves' values replaced for the time."""
    before = [t.detach().clone() for t in leaves]
    start = 0
    with facula.no_grad():
        for t in leaves:
            t.copy_(facula.tensor(values[start:start + t.numel()].reshape(t.shape)))
            start += t.numel()
    try:
        return fn()
    finally:
        with facula.no_grad():
            for t, b in zip(leaves, before):
                t.copy_(b)


def close(got, want):
    scale = np.abs(want).max(initial=0.0)
    return np.abs(got - want).max(initial=0.0) <= TOLERANCE * max(scale, 1.0)


# Eigenvectors of a general matrix are defined up to a complex phase, and the loss tells phases
# apart: it has no derivative.
SMOOTH = sorted(n for n, r in OPS.items()
                if r.samples and r.differentiable and n != "linalg.eig")


@pytest.mark.parametrize("name", SMOOTH)
def test_products_against_differences(name):
    checked = False
    for k, fn, args, kwargs, leaves in cases(name):
        def call(fn=fn, args=args, kwargs=kwargs):
            return outputs_of(fn(*args, **kwargs))

        try:
            outs = call()
        except (NotImplementedError, RuntimeError, TypeError):
            continue                            # a sample of another dtype
        outs = [z for z in outs if np.isfinite(z.detach().numpy()).all()]
        if not outs:
            continue

        def loss(call=call):
            return loss_of(call())

        def both(call=call):
            z = call()
            return loss_of(z), z

        hessian = HessianOperator(loss, leaves)
        newton = GaussNewtonOperator(both, leaves)
        assert hessian.why in ("", "a value was asked for during the call"), hessian.why
        checked = True
        n = hessian.shape[0]
        rng = np.random.default_rng(k)
        x = flat(leaves)
        v = rng.normal(size=n)
        u = rng.normal(size=n)
        hv, gv = (np.array((op @ facula.tensor(v)).numpy()) for op in (hessian, newton))
        hu, gu = (np.array((op @ facula.tensor(u)).numpy()) for op in (hessian, newton))
        first = joined(facula.autograd.grad(loss(), leaves, create_graph=True, **UNUSED))
        if first.requires_grad:
            twice = facula.autograd.grad(first, leaves, facula.tensor(v), **UNUSED)
            assert close(hv, flat(twice)), (name, k, "differentiated twice backwards")
        if name in CHOICE:
            continue
        for a, b in ((hu @ v, hv @ u), (gu @ v, gv @ u)):
            assert abs(a - b) <= 1e-8 * max(1.0, abs(a)), (name, k)
        if name in CONVENTION:
            continue

        def gradient(loss=loss, leaves=leaves):
            g = facula.autograd.grad(loss(), leaves, **UNUSED)
            return flat(g)

        def values(call=call):
            return [np.array(z.detach().numpy()) for z in call()]

        up, down = (at(leaves, x + s * STEP * v, gradient) for s in (1, -1))
        assert close(hv, (up - down) / (2 * STEP)), (name, k, "Hessian")
        high, low = (at(leaves, x + s * STEP * v, values) for s in (1, -1))
        moved = [(a - b) / (2 * STEP) for a, b in zip(high, low)]
        zs = call()
        seeds = [facula.tensor(weights(i, m.shape)[1] * m) for i, m in enumerate(moved)]
        back = facula.autograd.grad(zs, leaves, seeds, **UNUSED)
        assert close(gv, flat(back)), (name, k, "Gauss-Newton")
    if not checked:
        pytest.skip("no sample has a real leaf with a gradient")


def of_torch(name):
    """PyTorch's function of this name, or None."""
    place, _, last = name.rpartition(".")
    home = {"": torch, "functional": torch.nn.functional, "linalg": torch.linalg,
            "special": torch.special, "fft": torch.fft}.get(place)
    return getattr(home, last, None)


def translated(value, table):
    if isinstance(value, facula.Tensor):
        for mine, theirs in table:
            if value is mine:
                return theirs
        return torch.tensor(np.array(value.detach().numpy()))
    if isinstance(value, facula.DType):
        return getattr(torch, value.name)
    if isinstance(value, dict):
        return {k: translated(v, table) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(translated(v, table) for v in value)
    return value


def torch_outputs(value):
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in torch_outputs(v)]
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return []
    return [torch.view_as_real(value) if value.is_complex() else value]


@pytest.mark.slow
@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", SMOOTH)
def test_dense_hessians_against_torch(name):
    other = of_torch(name)
    if name in UNLIKE:
        pytest.skip("PyTorch has another Hessian; see UNLIKE")
    if other is None:
        pytest.skip("PyTorch has no function of this name")
    checked = False
    for k, fn, args, kwargs, leaves in cases(name):
        if sum(t.numel() for t in leaves) > 40:
            continue

        def both(fn=fn, args=args, kwargs=kwargs):
            z = outputs_of(fn(*args, **kwargs))
            return loss_of(z), z

        theirs = [torch.tensor(np.array(t.detach().numpy()), requires_grad=True) for t in leaves]
        table = list(zip(leaves, theirs))
        try:
            warnings.simplefilter("ignore")     # of names that PyTorch is about to drop
            outs = torch_outputs(other(*translated(args, table), **translated(kwargs, table)))
            if not outs:
                continue
            total = sum((torch.tensor(a) * z).sum() + 0.5 * (torch.tensor(b) * z * z).sum()
                        for z, (a, b) in ((z, weights(i, tuple(z.shape)))
                                          for i, z in enumerate(outs)))
            first = torch.autograd.grad(total, theirs, create_graph=True, allow_unused=True)
            first = torch.cat([(torch.zeros_like(t) if g is None else g).reshape(-1)
                               for t, g in zip(theirs, first)])
            if not first.requires_grad:
                continue
            rows = []
            for i in range(len(first)):
                row = torch.autograd.grad(first[i], theirs, retain_graph=True,
                                          allow_unused=True)
                rows.append(torch.cat([(torch.zeros_like(t) if g is None else g).reshape(-1)
                                       for t, g in zip(theirs, row)]))
            want = torch.stack(rows).detach().numpy()
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            continue                            # other arguments, or no second derivative there
        if not np.isfinite(want).all() or not close(want, want.T):
            continue
        mine = outputs_of(fn(*args, **kwargs))
        if [tuple(z.shape) for z in mine] != [tuple(z.shape) for z in outs]:
            continue
        got = HessianOperator(lambda both=both: both()[0], leaves).to_dense().numpy()
        assert close(got, want), (name, k, np.abs(got - want).max())
        checked = True
    if not checked:
        pytest.skip("no sample that both take")
