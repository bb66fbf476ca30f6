"""Blocked layouts, and what is kept of parameters: the same values as without, never old ones."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula import config, nn
from facula.codegen.convolutions.blocks.convolution import Blocks, squares_suit
from facula.codegen.convolutions.walks import Block, Walk, evened
from facula.graph.spec import Step, spec
from facula.schedule import executable, layout

CASES = [  # images, channels, outputs, size, kernel, stride, padding, dilation, groups
    (1, 16, 16, 8, 1, 1, 0, 1, 1), (2, 16, 48, 9, 3, 1, 1, 1, 1), (2, 32, 32, 14, 3, 2, 1, 1, 1),
    (1, 3, 64, 32, 7, 2, 3, 1, 1), (3, 64, 64, 7, 1, 1, 0, 1, 1), (1, 64, 64, 7, 1, 2, 0, 1, 1),
    (2, 32, 32, 11, 3, 1, 1, 1, 32), (2, 48, 48, 12, 5, 2, 2, 1, 48),
    (1, 16, 80, 13, 3, 1, 2, 1, 1), (1, 256, 512, 14, 1, 1, 0, 1, 1),
    (2, 64, 64, 29, 3, 1, 1, 1, 1), (16, 64, 64, 7, 3, 1, 1, 1, 1), (1, 32, 16, 10, 3, 1, 2, 2, 1),
    (1, 64, 48, (5, 17), (1, 7), 1, (0, 3), 1, 1), (1, 64, 32, (9, 1), (3, 1), 1, 0, 1, 1),
    (2, 320, 96, 1, 1, 1, 0, 1, 1), (1, 16, 32, 4, 3, 1, 1, 1, 1), (70, 16, 16, 1, 1, 1, 0, 1, 1),
    # channels that vectors do not divide
    (2, 24, 40, 9, 3, 1, 1, 1, 1), (1, 72, 24, 14, 1, 1, 0, 1, 1), (2, 72, 72, 11, 5, 2, 2, 1, 72),
    (1, 3, 20, 15, 3, 2, 1, 1, 1), (2, 200, 81, 7, 1, 1, 0, 1, 1), (1, 17, 33, 6, 3, 1, 1, 1, 1),
    (1, 250, 20, 5, 3, 1, 1, 1, 1), (1, 32, 72, 28, 3, 1, 1, 1, 1), (1, 5, 5, 9, 3, 1, 1, 1, 5),
    (3, 40, 1, 8, 1, 1, 0, 1, 1),
    # squares of 4x4 outputs, which lines divide or do not
    (1, 32, 48, 28, 3, 1, 1, 1, 1), (2, 16, 40, (23, 26), 3, 1, (0, 2), 1, 1),
    (1, 80, 16, 33, 3, 1, 0, 1, 1), (5, 16, 72, (11, 49), 3, 1, 1, 1, 1),
    (9, 48, 32, (6, 8), 3, 1, 1, 1, 1), (1, 16, 16, (5, 121), 3, 1, 1, 1, 1),
    # threads part the channels of a weight much larger than its source
    (1, 64, 1024, 5, 1, 1, 0, 1, 1), (1, 96, 320, (7, 3), 3, 2, 1, 1, 1)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Layouts are changed for small convolutions too, and everything is compiled."""
    monkeypatch.setattr(layout, "LEAST", 0)
    monkeypatch.setattr(layout, "WASTE", 100.0)
    monkeypatch.setattr(layout, "ALONE", 0)
    monkeypatch.setattr(config.flag, "INTERPRET", False)


def convolved(x, w, b, stride, padding, dilation, groups):
    """The convolution in float64, by NumPy."""
    sizes = [(v, v) if isinstance(v, int) else v for v in (stride, padding, dilation)]
    (sy, sx), (py, px), (dy, dx) = sizes
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (py, py), (px, px)))
    o, i, kh, kw = w.shape
    h, width = ((n - d * (k - 1) - 1) // s + 1 for n, d, k, s in
                zip(x.shape[2:], (dy, dx), (kh, kw), (sy, sx)))
    out = np.zeros((x.shape[0], o, h, width))
    for g in range(groups):
        part = x[:, g * i:(g + 1) * i]
        each = slice(g * o // groups, (g + 1) * o // groups)
        for r, c in itertools.product(range(kh), range(kw)):
            seen = part[:, :, r * dy:r * dy + sy * (h - 1) + 1:sy,
                        c * dx:c * dx + sx * (width - 1) + 1:sx]
            out[:, each] += np.einsum("nihw,oi->nohw", seen, w[each, :, r, c].astype(np.float64))
    return out + b[:, None, None]


def settle(net, x):
    """Have all values in memory, so that the next program begins with them."""
    for v in (*net.state_dict().values(), x):
        v._peek()


def drawn(*shape):
    return np.random.default_rng(abs(hash(shape)) % 1000).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions_on_blocks(case, made):
    n, c, o, size, k, stride, padding, dilation, groups = case
    size, k = ((v, v) if isinstance(v, int) else v for v in (size, k))
    x, w, b = drawn(n, c, *size), drawn(o, c // groups, *k), drawn(o)
    want = np.maximum(convolved(x, w, b, stride, padding, dilation, groups), 0)
    args = [facula.tensor(v) for v in (x, w, b)]
    with facula.no_grad():
        for _ in range(2):
            have = F.relu(F.conv2d(*args, stride, padding, dilation, groups)).numpy()
    assert isinstance(made[-1], executable._Halved)
    assert np.linalg.norm(have - want) / np.linalg.norm(want) < 3e-6


def test_lanes_without_a_channel_are_never_seen(made):
    """They hold zeros after the first convolution here, and then what is not finite."""
    x, w, v = drawn(2, 24, 9, 9), drawn(20, 24, 3, 3), drawn(36, 20, 1, 1)
    with facula.no_grad():
        y = F.conv2d(facula.tensor(x), facula.tensor(w)).abs().log()
        z = F.conv2d(y, facula.tensor(v))
        have = [t.numpy() for t in (y, z, z / z, facula.cat([y[:, :16], z, y], 1).amax((2, 3)))]
    assert isinstance(made[-1], executable._Halved)
    y = np.log(np.abs(convolved(x, w, np.zeros(20), 1, 0, 1, 1)))
    z = convolved(y, v, np.zeros(36), 1, 0, 1, 1)
    want = y, z, np.ones_like(z), np.concatenate([y[:, :16], z, y], 1).max((2, 3))
    for a, b in zip(have, want, strict=True):
        assert np.allclose(a, b, 1e-3, 1e-3)


@pytest.mark.parametrize("size", [20, 27])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_where_it_is(bad, size):
    x, w, b = drawn(1, 32, size, size), drawn(32, 32, 3, 3), drawn(32)
    x[0, 5, 7, 9] = bad
    with np.errstate(all="ignore"):
        want = convolved(x, w, b, 1, 1, 1, 1)
    with facula.no_grad():
        have = F.conv2d(*[facula.tensor(v) for v in (x, w, b)], padding=1).numpy()
    assert np.array_equal(np.isfinite(have), np.isfinite(want))
    assert np.isfinite(have).sum() == have.size - 32 * 9
    seen = ~np.isnan(want)
    assert np.array_equal(np.isnan(have), ~seen)
    assert np.allclose(have[seen], want[seen], 1e-4, 1e-4)


@pytest.mark.parametrize("size", [8, 30])
def test_what_only_a_transform_overflows_on(size):
    x, w = drawn(4, 32, size, size), np.abs(drawn(32, 32, 3, 3))
    x[:, :, 3, 4], x[:, :, 3, 6] = 3e38, -3e38
    w[:, 1:] = 0
    w /= 40
    want = convolved(x, w, np.zeros(32), 1, 1, 1, 1)
    with facula.no_grad():
        have = F.conv2d(*[facula.tensor(v) for v in (x, w)], padding=1).numpy()
    assert np.isfinite(have).all()
    assert np.allclose(have, want, 1e-4, 1e-4)


@pytest.mark.parametrize(("channels", "size", "lasting", "side"), [
    (64, 56, True, 4), (64, 56, False, 4), (64, 14, True, 2), (64, 46, False, 4), (512, 7, True, 2),
    (512, 7, False, 0), (64, 3, True, 0)])
def test_squares_by_what_their_weights_cost(channels, size, lasting, side):
    c = Blocks((1, channels, size, size), (channels, channels, 3, 3), (1, channels, size, size),
               (1, 1), (1, 1), (1, 1), True, 16)
    assert squares_suit(c, lasting) == side


def test_a_weight_that_is_computed_of_data(made):
    x, w, v = drawn(1, 64, 7, 7), drawn(64, 64, 3, 3), drawn(64, 64, 1, 1)
    with facula.no_grad():
        for scale in (1, 2):
            y = F.conv2d(facula.tensor(scale * x), facula.tensor(v))
            have = F.conv2d(y, facula.tensor(w) * y.mean(), padding=1).numpy()
            y = convolved(scale * x, v, np.zeros(64), 1, 0, 1, 1)
            want = convolved(y, w * y.mean(), np.zeros(64), 1, 1, 1, 1)
            assert np.linalg.norm(have - want) / np.linalg.norm(want) < 3e-5
    squares = [s.attrs[-1] for s in made[-1].steps if s.op == "conv_blocks"]
    assert squares == [0, 0]


def test_blocks_that_threads_share_evenly():
    def tiles(count, size, each):
        walk = Walk(count, 1, 0, 1, 1, count)
        return evened(Block((walk,), (1, count), (1, size), (1, 14)), each).blocks

    assert tiles(3136, 252, 2) == (1, 16)           # and not 12 and a shorter one
    assert tiles(3136, 224, 1) == (1, 16)           # eight threads take two each
    assert tiles(196, 196, 3) == (1, 1)
    assert tiles(14 * 4096, 14, 1) == (1, 4096)     # so many are even enough


class Mixed(nn.Module):
    """Convolutions with what may stand between them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, 2, 1)
        self.bn = nn.BatchNorm2d(32)
        self.depth = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.wide = nn.Conv2d(32, 64, 1)
        self.odd = nn.Conv2d(64, 20, 3, padding=1)
        self.norm = nn.BatchNorm2d(20)
        self.few = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.small = nn.Conv2d(20, 5, 1)
        self.back = nn.Conv2d(25, 32, 1)
        self.squeeze = nn.Conv2d(64, 64, 1)
        self.grouped = nn.Conv2d(64, 64, 3, padding=1, groups=4)

    def forward(self, x):
        x = F.relu(self.bn(self.first(x)))
        y = F.hardswish(self.depth(F.max_pool2d(x, 3, 2, 1)))
        y = self.wide(y) * F.sigmoid(self.squeeze(F.adaptive_avg_pool2d(self.wide(y), 1)))
        z = self.few(F.relu(self.norm(self.odd(y))))
        z = z * F.hardsigmoid(z.mean((2, 3), keepdim=True)) + z.flip(1)
        z = self.back(facula.cat([z, self.small(z)], 1))
        z = F.avg_pool2d(F.leaky_relu(z), 3, 1, 1)
        z = facula.cat([z, y[:, :32] + 1.5, y.flip(3)[:, 32:]], 1)
        z = z[:, :64] - z[:, 32:].mean((2, 3), keepdim=True).clamp(min=0).repeat(1, 1, 1, 1)
        z = facula.where(z > 0.1, z, z.transpose(2, 3)) + self.grouped(z)
        return F.pad(z, (1, 0, 2, 1)).amax((2, 3)), z.flatten(1), x


def test_a_graph_of_many_kinds(made):
    facula.manual_seed(0)
    net = Mixed().eval()
    net.bn.running_var.fill_(1.5)
    net.norm.running_mean.uniform_(-1, 1)
    net.norm.weight.data.uniform_(0.5, 2)
    x = facula.randn(2, 3, 29, 29)
    settle(net, x)
    with facula.no_grad():
        have = [v.numpy() for v in net(x)]
        assert any(isinstance(m, executable._Halved) for m in made)
        want = [v.numpy() for v in net.double()(x.double())]
    for a, b in zip(have, want, strict=True):
        assert a.shape == b.shape and np.allclose(a, b, 1e-4, 1e-4)


def test_without_blocks(monkeypatch, made):
    monkeypatch.setattr(config.flag, "LAYOUT", False)
    with facula.no_grad():
        F.conv2d(facula.randn(1, 16, 6, 6), facula.randn(16, 16, 3, 3)).numpy()
    assert not any(isinstance(m, executable._Halved) for m in made)


def test_gradients_want_the_plain_order(made):
    w = facula.randn(16, 16, 3, 3, requires_grad=True)
    F.conv2d(facula.randn(1, 16, 6, 6), w).sum().backward()
    assert w.grad.numpy().shape == (16, 16, 3, 3)
    assert not any(isinstance(m, executable._Halved) for m in made)


def test_max_pooling_without_gradients():
    x = drawn(2, 3, 9, 8)
    x[0, 0, 3, 3], x[1, 2, 4, 4] = np.nan, -np.inf
    plain = facula.tensor(x)
    with_grad = facula.tensor(x, requires_grad=True)
    for how in ((2,), (3, 2, 1), (2, 1, 0, 2), (3, 2, 0, 1, True)):
        assert np.array_equal(F.max_pool2d(plain, *how).numpy(),
                              F.max_pool2d(with_grad, *how).detach().numpy(), equal_nan=True)


# ---------------------------------------------------------------- what is kept

def setting(size=9):
    facula.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
                        nn.Conv2d(32, 16, 1)).eval()
    x = facula.randn(1, 16, size, size)
    settle(net, x)
    return net, x


def fresh(net, x):
    """The network's result by the interpreter."""
    net = [[np.array(v._peek()) for v in m.state_dict().values()] for m in net]
    (w, b), (gain, shift, mean, var, _), _, (w2, b2) = net
    y = convolved(np.array(x._peek()), w, b, 1, 1, 1, 1)
    y = (y - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    y = np.maximum(y * gain[:, None, None] + shift[:, None, None], 0)
    return convolved(y, w2, b2, 1, 0, 1, 1)


def run(net, x, compiled):
    with facula.no_grad():
        return compiled(x).numpy() if compiled else net(x).numpy()


def halved(made):
    return next(m for m in reversed(made) if isinstance(m, executable._Halved))


def _in_place(net):
    with facula.no_grad():
        net[0].weight.mul_(2)


def _part(net):
    with facula.no_grad():
        net[3].weight[2:5, 1] = net[3].weight[2:5, 1] * 2 + 1


def _optimizer(net):
    for p in net.parameters():
        p.grad = facula.ones(p.shape)
    facula.optim.SGD(net.parameters(), 0.3).step()


def _load(net):
    net.load_state_dict({k: v * 1.25 if v.dtype is facula.float32 else v
                         for k, v in net.state_dict().items()})


def _data(net):
    net[0].weight.data = facula.randn(32, 16, 3, 3)


def _replaced(net):
    net[3] = nn.Conv2d(32, 16, 1)


def _numpy(net):
    array = net[0].weight.detach().numpy()
    array[3] += 2.0


def _statistics(net):
    net[1].running_var.add_(1.0)


def _trained(net):
    net.train()(facula.randn(4, 16, 5, 5)).sum().backward()
    net.eval()


@pytest.mark.parametrize("compiled", [False, True], ids=["dynamic", "compiled"])
@pytest.mark.parametrize("write", [_in_place, _part, _optimizer, _load, _data, _replaced, _numpy,
                                   _statistics, _trained], ids=lambda f: f.__name__)
def test_what_is_kept_follows_every_write(write, compiled):
    net, x = setting()
    forward = facula.compile(net) if compiled else None
    for _ in range(3):
        assert np.allclose(run(net, x, forward), fresh(net, x), 1e-4, 1e-4)
        old = run(net, x, forward)
        write(net)
        for _ in range(3):
            have = run(net, x, forward)
            assert np.allclose(have, fresh(net, x), 1e-4, 1e-4)
        assert not np.allclose(have, old, 1e-4, 1e-4)


def test_an_array_that_is_held_is_looked_at_every_time():
    net, x = setting()
    run(net, x, None)
    array = net[0].weight.detach().numpy()
    for k in range(3):
        array[k] = k + 5
        assert np.allclose(run(net, x, None), fresh(net, x), 1e-4, 1e-4)


def test_packing_happens_once(made):
    net, x = setting(10)
    run(net, x, None)
    kept = halved(made).kept
    buffers = kept.buffers
    assert buffers
    for _ in range(3):
        run(net, x, None)
        run(net, facula.randn(1, 16, 10, 10), None)
        assert kept.buffers is buffers
    with facula.no_grad():
        net[0].weight.add_(1).sum().item()
    assert kept.buffers is None
    run(net, x, None)
    assert kept.buffers is not None and kept.buffers is not buffers


def test_what_is_kept_goes_with_the_parameter(made):
    net, x = setting(11)
    run(net, x, None)
    kept = halved(made).kept
    assert kept.buffers
    del net
    gc.collect()
    assert kept.buffers is None


def test_two_networks_of_one_structure():
    (a, x), (b, _) = setting(), setting()
    with facula.no_grad():
        b[0].weight.mul_(-1)
    for _ in range(3):
        for net in (a, b):
            assert np.allclose(run(net, x, None), fresh(net, x), 1e-4, 1e-4)


@pytest.mark.parametrize(("width", "kernel", "changed"), [(128, 3, True), (64, 3, False),
                                                          (128, 1, False)])
def test_a_convolution_alone(monkeypatch, width, kernel, changed):
    """A single convolution changes its layout only if there is much to do for each element."""
    monkeypatch.undo()
    shapes = (2, width, 20, 20), (width, width, kernel, kernel), (2, width, 20, 20)
    steps = [Step("leaf", (None,), (), spec(s, facula.float32)) for s in shapes[:2]]
    attrs = ((1, 1), (kernel // 2,) * 2, (1, 1), 1)
    steps.append(Step("conv", attrs, (0, 1), spec(shapes[2], facula.float32)))
    assert (layout.in_blocks(steps, [2]) is not None) is changed
    steps.append(Step("conv", attrs, (2, 1), spec(shapes[2], facula.float32)))
    assert layout.in_blocks(steps, [3]) is not None
