"""Training steps on blocks of channels: the gradients are those of float64, whatever stands between
the convolutions, and what is not finite stays where it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula import config, nn, optim
from facula.codegen.convolutions.blocks import convolution as blocked
from facula.codegen.convolutions.blocks.weight import BlocksWeight
from facula.graph.flush import flush
from facula.graph.record import State, recorder
from facula.schedule import layout, layout_back


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Layouts are changed for small convolutions too, and everything is compiled."""
    monkeypatch.setattr(layout, "LEAST", 0)
    monkeypatch.setattr(layout_back, "LEAST", 0)
    monkeypatch.setattr(layout_back, "PLACES", 0)
    monkeypatch.setattr(blocked, "PLACES", 0)
    monkeypatch.setattr(config.flag, "INTERPRET", False)


def operations(made):
    return [s.op for executable in made for s in executable.steps]


def gradients(net, x, dtype, take=lambda y: (y * y).sum()):
    """Loss and gradients of a network on `x`, which has one, too."""
    net = net.to(dtype)
    for p in net.parameters():
        p.grad = None
    x = facula.tensor(x, dtype=dtype, requires_grad=True)
    x._peek(), [p._peek() for p in net.parameters()]
    loss = take(net(x))
    loss.backward()
    return [loss.detach().numpy(), x.grad.numpy(), *[p.grad.numpy() for p in net.parameters()]]


def agree(net, x, made, tolerance=2e-5, on_blocks=True):
    have = gradients(net, x, facula.float32)
    assert ("conv_weight_blocks" in operations(made)) == on_blocks
    assert ("conv_weight" in operations(made)) != on_blocks
    want = gradients(net, x, facula.float64)
    for a, b in zip(have, want, strict=True):
        assert a.dtype == np.float32
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) + 1e-4


def drawn(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


CASES = [  # images, channels, outputs, more, size, kernel, padding, dilation
    (2, 16, 16, 16, (9, 9), 3, 1, 1), (3, 32, 48, 16, (12, 7), 3, 0, 1),
    (1, 16, 32, 32, (5, 6), (1, 3), 0, 1), (4, 48, 16, 64, (7, 7), 1, 0, 1),
    (2, 16, 80, 16, (13, 11), 5, 2, 1), (2, 32, 32, 48, (11, 12), 3, 2, 2),
    (5, 16, 144, 16, (6, 5), 3, 1, 1), (70, 16, 16, 16, (3, 4), 3, 1, 1),
    (1, 16, 16, 16, (31, 33), 3, 1, 1), (2, 16, 16, 16, (4, 4), 3, 3, 1),
    (6, 160, 32, 16, (8, 6), 3, 1, 1)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_convolutions(case, made):
    n, c, o, more, size, kernel, padding, dilation = case
    net = nn.Sequential(nn.Conv2d(c, o, kernel, 1, padding, dilation), nn.ReLU(),
                        nn.Conv2d(o, more, kernel, 1, padding, dilation))
    agree(net, drawn(n, c, *size), made)


@pytest.mark.parametrize("channels, stride, kernel",
                         list(itertools.product((1, 3, 8), (1, 2), (3, 5))))
def test_a_first_convolution_of_few_channels(channels, stride, kernel, made):
    """Its input has no gradient, and no blocks."""
    net = nn.Sequential(nn.Conv2d(channels, 32, kernel, stride, 1), nn.Tanh(),
                        nn.Conv2d(32, 16, 3))
    x = facula.tensor(drawn(3, channels, 17, 14))
    results = []
    for dtype in (facula.float32, facula.float64):
        net.to(dtype)
        for p in net.parameters():
            p.grad = None
            p._peek()
        (net(x.to(dtype)) ** 2).sum().backward()
        results.append([p.grad.numpy() for p in net.parameters()])
        if dtype is facula.float32:
            assert "conv_weight_blocks" in operations(made)
    for a, b in zip(*results, strict=True):
        assert np.linalg.norm(a - b) <= 2e-5 * np.linalg.norm(b)


POOLS = [nn.MaxPool2d(2), nn.MaxPool2d(3), nn.MaxPool2d((2, 3)), nn.MaxPool2d(3, 2),
         nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 3), nn.MaxPool2d(2, ceil_mode=True),
         nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(4), nn.BatchNorm2d(32), nn.Dropout(0.0),
         nn.Upsample(scale_factor=2), nn.ZeroPad2d(1), nn.LeakyReLU(0.1)]


@pytest.mark.parametrize("between", POOLS, ids=str)
def test_what_stands_between(between, made):
    net = nn.Sequential(nn.Conv2d(16, 32, 3), between, nn.Conv2d(32, 16, 3), nn.Flatten())
    agree(net, drawn(2, 16, 13, 15), made)


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.MaxPool2d(3), nn.MaxPool2d(2, 3),
                                   nn.MaxPool2d(2, 3, dilation=2),
                                   nn.MaxPool2d((3, 2), ceil_mode=True)], ids=str)
def test_windows_that_do_not_meet_need_no_scatter(layer, made):
    agree(nn.Sequential(nn.Conv2d(16, 32, 3), layer, nn.Conv2d(32, 16, 3)), drawn(2, 16, 14, 13),
          made)
    assert "scatter" not in operations(made[:1])


def test_ties_and_indices(made):
    """The first of equal elements has the gradient; places that are asked for are right."""
    x = facula.tensor(np.ones((1, 16, 8, 8), np.float32), requires_grad=True)
    w = facula.tensor(np.ones((16, 16, 1, 1), np.float32), requires_grad=True)
    y, places = F.max_pool2d(F.conv2d(F.conv2d(x, w), w), 2, return_indices=True)
    y.sum().backward()
    grads = x.grad.numpy()
    assert np.array_equal(grads[0, 0, ::2, ::2], np.full((4, 4), 256.0))
    assert np.count_nonzero(grads) == 16 * 16
    want = np.arange(64).reshape(8, 8)[::2, ::2]
    assert np.array_equal(places.numpy()[0, 3], want)
    assert "conv_weight_blocks" in operations(made)


@pytest.mark.parametrize("padding", [0, 1])
def test_what_is_not_finite_stays_where_it_is(padding, made):
    """In a weight's gradient that is a channel, in an input's the kernel around a place."""
    side = 18 + 2 * padding
    for bad in (np.nan, np.inf, -np.inf):
        spot, seed = np.zeros((2, 32, 20, 20), np.float32), drawn(2, 48, side, side)
        spot[0, 5, 7, 9] = seed[1, 3, 11, 12] = bad
        results = []
        for dtype in (facula.float32, facula.float64):
            x, one, w, at = (facula.tensor(v, dtype=dtype) for v in (
                drawn(2, 32, 20, 20), drawn(32, 32, 1, 1), drawn(48, 32, 3, 3), spot))
            for t in (x, one, w):
                t.requires_grad_()
                t._peek()
            y = F.conv2d(F.conv2d(x, one) + at, w, padding=padding)
            y.backward(facula.tensor(seed, dtype=dtype))
            results.append((x.grad.numpy(), w.grad.numpy()))
        for have, want in zip(*results, strict=True):
            assert np.array_equal(np.isnan(have), np.isnan(want))
            finite = np.isfinite(want)
            assert np.array_equal(np.isfinite(have), finite) and 0 < finite.sum() < finite.size
            assert np.allclose(have[finite], want[finite], 1e-3, 1e-3)
    assert "conv_weight_blocks" in operations(made)
    assert sides(made[0])[:2] == [4, 4] and adjoint(made[0]) == (padding == 0)


# ---------------------------------------------------------------- minimal filtering

def sides(executable):
    """Outputs along a side of the squares of the 3x3 convolutions, then of their weights'."""
    steps = executable.steps
    return [blocked.Blocks(*s.attrs).squares for s in steps
            if s.op == "conv_blocks" and s.attrs[1][2:] == (3, 3)] + [
        BlocksWeight(*s.attrs).squares for s in steps
        if s.op == "conv_weight_blocks" and s.attrs[1][2:] == (3, 3)]


def adjoint(executable):
    return any(blocked.Blocks(*s.attrs).adjoint for s in executable.steps
               if s.op == "conv_blocks")


SQUARES = [  # images, channels, outputs, size, padding; sides forward, back, of the weight
    (4, 16, 32, (13, 13), 0, [4, 4, 2], True), (64, 16, 32, (13, 13), 0, [4, 4, 4], True),
    (3, 32, 16, (26, 23), 0, [4, 4, 4], True),
    (9, 16, 48, (11, 12), 1, [4, 4, 2], False),
    (2, 48, 80, (20, 18), 1, [4, 4, 4], False),
    (40, 16, 16, (6, 5), 0, [4, 4, 4], True), (1, 16, 32, (34, 40), 0, [4, 4, 4], False),
    (33, 16, 16, (4, 4), 0, [2, 2, 0], True), (17, 80, 16, (8, 8), 0, [2, 2, 2], True),
    (6, 16, 96, (9, 17), 2, [4, 4, 4], False), (32, 16, 16, (3, 3), 0, [0, 4, 0], False)]


def by_squares(case, sparse=False):
    """What a 3x3 convolution behind one of one point gives: its result and gradients by input
    and weight, and float64 ones of the identity before it."""
    n, c, o, size, padding = case[:5]
    x, w = drawn(n, c, *size), drawn(o, c, 3, 3)
    seed = drawn(n, o, *[v + 2 * padding - 2 for v in size])
    if sparse:
        x, seed = np.maximum(x, 0), np.where(seed > 0.6, seed, 0)
    one = np.eye(c, dtype=np.float32)[:, :, None, None]
    a, e, k, g = (facula.tensor(v) for v in (x, one, w, seed))
    for t in (a, e, k):
        t.requires_grad_()
    y = F.conv2d(F.conv2d(a, e), k, padding=padding)
    (y * g).sum().backward()
    y = y.detach()
    return (x, w, seed), [v.numpy() for v in (y, a.grad, k.grad)]


def plainly(x, w, padding):
    """The convolution in float64, by NumPy."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    h, width = (v - 2 for v in x.shape[2:])
    return sum(np.einsum("nihw,oi->nohw", x[:, :, r:r + h, q:q + width],
                         w[:, :, r, q].astype(np.float64))
               for r, q in itertools.product(range(3), range(3)))


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("case", SQUARES, ids=str)
def test_gradients_by_squares(case, sparse, made):
    """A convolution is linear in either operand: differences are its gradients, exactly."""
    padding, expected, turned = case[4:]
    (x, w, seed), (y, by_x, by_w) = by_squares(case, sparse)
    if not sparse:                  # otherwise the program is there already
        assert (sides(made[0]), adjoint(made[0])) == (expected, turned)
    want = plainly(x, w, padding)
    assert np.linalg.norm(y - want) < 8e-7 * np.linalg.norm(want)
    rng = np.random.default_rng(5)
    for have, value, moved in ((by_x, x, lambda d: plainly(d, w, padding)),
                               (by_w, w, lambda d: plainly(x, d, padding))):
        for _ in range(3):
            way = rng.standard_normal(value.shape)
            slope = (moved(way) * seed).sum()
            assert abs((have * way).sum() - slope) < 3e-6 * np.linalg.norm(have) * \
                np.linalg.norm(way) / np.sqrt(way.size) * np.sqrt(have.size) + 1e-9


@pytest.mark.parametrize("case", SQUARES, ids=str)
def test_gradients_by_squares_are_those_of_torch(case):
    torch = pytest.importorskip("torch")
    (x, w, seed), have = by_squares(case)
    a, k = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, w))
    y = torch.nn.functional.conv2d(a, k, padding=case[4])
    (y * torch.tensor(seed)).sum().backward()
    for mine, theirs in zip(have, (y.detach(), a.grad, k.grad), strict=True):
        theirs = theirs.numpy()
        assert np.linalg.norm(mine - theirs) < 1.2e-6 * np.linalg.norm(theirs)


def test_lines_too_long_for_a_tile(made):
    net = nn.Sequential(nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=(1, 0)))
    agree(net, drawn(1, 16, 5, 5000), made)
    assert [0, 0, 0] in [sides(m) for m in made]


def test_sums_that_only_a_transform_overflows_on(made):
    """They are computed again by plain sums."""
    x, w = np.zeros((4, 16, 13, 13), np.float32), drawn(16, 16, 3, 3) / 40
    seed = np.zeros((4, 16, 11, 11), np.float32)
    seed[0, :, 3, 4], seed[0, :, 3, 6] = 3e38, -3e38
    x[1, :, 5, 5], x[1, :, 5, 7] = 3e38, -3e38
    w[:, 1:] = 0
    a, e, k = (facula.tensor(v, requires_grad=True) for v in (
        x, np.eye(16, dtype=np.float32)[:, :, None, None], w))
    y = F.conv2d(F.conv2d(a, e), k)
    y.backward(facula.tensor(seed))
    assert np.isfinite(a.grad.numpy()).all() and np.isfinite(y.detach().numpy()).all()
    assert sides(made[0])[:2] == [4, 4] and adjoint(made[0])
    want = plainly(x, w, 0)
    assert np.allclose(y.detach().numpy(), want, 1e-4, 1e-4)


@pytest.mark.parametrize("net", [
    nn.Sequential(nn.Conv2d(16, 32, 3, 2), nn.Conv2d(32, 16, 3)),
    nn.Sequential(nn.Conv2d(16, 32, 3, groups=2), nn.Conv2d(32, 16, 3)),
    nn.Sequential(nn.Conv2d(16, 20, 3), nn.Conv2d(20, 16, 3))], ids=["strided", "groups", "lanes"])
def test_what_does_not_fit_keeps_its_order(net, made):
    """Strides where the input has a gradient, groups, channels that lanes do not divide."""
    agree(net, drawn(2, 16, 13, 13), made, on_blocks=False)


ACTIVATIONS = [F.relu, F.relu6, F.gelu, F.silu, F.elu, F.softplus, F.hardswish, F.hardtanh,
               lambda x: F.relu(x, inplace=True), lambda x: x.clamp(min=0),
               lambda x: F.threshold(x, 0.1, 0.0), lambda x: x * (x > 0), F.logsigmoid]


class Drawn(nn.Module):
    """Convolutions with what a seed picks between them: a weight that is used twice, ones without
    gradient, parts that no gradient passes, outputs that are views of what others read."""

    def __init__(self, seed):
        super().__init__()
        pick = np.random.default_rng(seed)
        normed = bool(pick.integers(2))         # which takes a bias away again
        self.norm = nn.BatchNorm2d(32) if normed else nn.Identity()
        self.first = nn.Conv2d(16, 32, 3, padding=1, bias=not normed)
        self.again = nn.Conv2d(32, 32, int(pick.choice([1, 3])), padding="same")
        self.last = nn.Conv2d(32, 16, 3)
        self.act = [ACTIVATIONS[k] for k in pick.choice(len(ACTIVATIONS), 3)]
        self.cut, self.kind = int(pick.integers(4)), int(pick.integers(4))
        for layer in (self.first, self.again, self.last):
            if pick.integers(4) == 0:
                layer.weight.requires_grad_(False)
        self.pool = bool(pick.integers(2))

    def forward(self, x):
        y = self.act[0](self.norm(self.first(x)))
        z = self.act[1](self.again(y))
        if self.cut == 0:                       # a constant in the middle
            with facula.no_grad():
                z = z * self.again(y).sigmoid()
        elif self.cut == 1:
            z = z + self.again(y.detach())
        elif self.cut == 2:                     # written in place through a view
            z = z * 1.5
            z[:, :7].mul_(0.5)
        y = self.act[2](self.again(z)) + y      # the weight again, and a way around it
        if self.pool:
            y = F.max_pool2d(y, 2)
        out = self.last(y)
        if self.kind == 0:
            return out.sum((2, 3)) + y[:, :16].mean((2, 3))
        if self.kind == 1:                      # outputs that share memory
            return facula.cat([out.flatten(1), out[:, 3:5].flatten(1), y.view(y.shape[0], -1)], 1)
        return out if self.kind == 2 else out.transpose(1, 3)[..., ::2]


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed, made):
    facula.manual_seed(seed)
    net, x = Drawn(seed), drawn(3, 16, 11, 12)

    def run(dtype):
        net.to(dtype)
        for p in net.parameters():
            p.grad = None
            p._peek()
        if isinstance(net.norm, nn.BatchNorm2d):
            net.norm.reset_running_stats()
        data = facula.tensor(x, dtype=dtype, requires_grad=True)
        data._peek()
        out = net(data)
        (out * out).sum().backward()
        return [out.detach().numpy(), data.grad.numpy(), *[p.grad.numpy() for p in net.parameters()
                                                          if p.grad is not None]]

    have = run(facula.float32)
    if any(layer.weight.requires_grad for layer in (net.first, net.again, net.last)):
        assert "conv_weight_blocks" in operations(made)
    want = run(facula.float64)
    assert len(have) == len(want)
    for a, b in zip(have, want, strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b) + 1e-4


def test_gradients_of_gradients(made):
    """A penalty on the gradient by the input, whose own gradient goes into the weights."""
    net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Softplus(), nn.Conv2d(32, 16, 3))
    results = []
    for dtype in (facula.float32, facula.float64):
        net.to(dtype)
        for p in net.parameters():
            p.grad = None
            p._peek()
        x = facula.tensor(drawn(2, 16, 10, 9), dtype=dtype, requires_grad=True)
        x._peek()
        grad, = facula.autograd.grad(net(x).square().sum(), x, create_graph=True)
        grad.square().sum().backward()
        results.append([p.grad.numpy() for p in net.parameters()] + [x.grad.numpy()])
    for a, b in zip(*results, strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)


def test_scaled_losses(made):
    """GradScaler: the step is left out where a gradient is not finite, and the scale is halved."""
    results = []
    for flag in (True, False):
        with config.override(LAYOUT=flag):
            facula.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3))
            optimizer = optim.SGD(net.parameters(), 1e-4, momentum=0.9)
            scaler = facula.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
            seen = []
            for k in range(5):
                x = drawn(2, 16, 10, 9) * (np.inf if k == 2 else 1)
                optimizer.zero_grad()
                scaler.scale(net(facula.tensor(x)).square().sum()).backward()
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(net.parameters(), 1e3)
                scaler.step(optimizer)
                scaler.update()
                seen += [scaler.get_scale(), *[p.detach().numpy().copy() for p in net.parameters()]]
            results.append(seen)
    assert "conv_weight_blocks" in operations(made)
    assert results[0][::5] == results[1][::5] == [1024.0, 2048.0, 1024.0, 1024.0, 2048.0]
    for a, b in zip(*results, strict=True):
        assert np.allclose(a, b, 1e-4, 1e-5)


def test_a_step_with_its_update_is_reproduced(made):
    """Updates in place, several steps, another batch size between them."""
    def run(flag):
        config.flag.LAYOUT = flag
        rec = recorder()                # programs are found by what they do, not by the flag
        flush(rec)
        rec.root, rec.states = State(None, ()), 0
        rec.fresh_graph()
        facula.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3),
                            nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 10))
        optimizer = facula.optim.Adam(net.parameters(), 1e-3)
        losses = []
        for n in (6, 6, 4, 6, 5, 6):
            loss = F.cross_entropy(net(facula.tensor(drawn(n, 1, 28, 28))),
                                   facula.tensor(np.arange(n)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    before = config.flag.LAYOUT
    try:
        plain, blocked, again = run(False), run(True), run(True)
    finally:
        config.flag.LAYOUT = before
    assert "conv_weight_blocks" in operations(made)
    assert blocked == again
    assert np.allclose(plain, blocked, 1e-4)
