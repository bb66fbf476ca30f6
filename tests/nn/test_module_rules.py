"""The rules of Module, one after the other in both libraries: what is called, returned, refused."""

from __future__ import annotations

import itertools

import pytest

import facula


def _numbers(t):
    return [round(float(v), 4) for v in t.reshape(-1)]


class _Log(list):
    """What happened, in words that are the same for both libraries."""

    def __call__(self, *parts):
        self.append(" ".join(map(str, parts)))

    def tried(self, call):
        try:
            result = call()
        except Exception as error:
            kinds = [k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins"]
            self("raised", kinds[0])
        else:
            plain = (int, float, str, list, tuple, bool, dict, type(None))
            self("gave", result if isinstance(result, plain) else type(result).__name__)


def _linear(lib, *size):
    layer = lib.nn.Linear(*size)
    with lib.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(0.25)
    return layer


def hooks(lib, log):
    nn, x = lib.nn, lib.ones(2, 2)
    net = nn.Sequential(_linear(lib, 2, 3), nn.Tanh(), _linear(lib, 3, 1))
    net.register_forward_pre_hook(lambda m, a: log("pre 1"))
    net.register_forward_pre_hook(lambda m, a: log("pre 0"), prepend=True)
    net.register_forward_pre_hook(lambda m, a, k: (log("pre k", k), (a, k))[1], with_kwargs=True)
    net.register_forward_hook(lambda m, a, o: log("after", tuple(o.shape)))
    net.register_forward_hook(lambda m, a, k, o: log("after k", k), with_kwargs=True, prepend=True)
    handle = net.register_full_backward_hook(lambda m, gi, go: log(
        "back", [None if g is None else _numbers(g) for g in gi], [_numbers(g) for g in go]))
    net.register_full_backward_pre_hook(lambda m, go: (log("back pre"), (go[0] * 2,))[1])
    net[0].register_full_backward_hook(lambda m, gi, go: log(
        "back 0", [g is None for g in gi], [_numbers(g) for g in go]))
    net(x).sum().backward()
    log(_numbers(net[0].weight.grad))
    handle.remove()
    y = lib.ones(2, 2, requires_grad=True)
    net(y).sum().backward()
    log(_numbers(y.grad))
    scaled = nn.Sequential(_linear(lib, 2, 1))
    scaled.register_full_backward_hook(lambda m, gi, go: (gi[0] * 3,))
    y = lib.ones(2, 2, requires_grad=True)
    scaled(y).sum().backward()
    log(_numbers(y.grad))

    class Bad(nn.Module):
        def forward(self, x):
            raise RuntimeError("bad")

    bad = Bad()
    bad.register_forward_hook(lambda *a: log("always", a[2]), always_call=True)
    bad.register_forward_hook(lambda *a: log("never"))
    log.tried(lambda: bad(x))
    layer = _linear(lib, 2, 2)
    layer.register_forward_pre_hook(lambda m, a: a[0] * 2)
    layer.register_forward_hook(lambda m, a, o: o + 100)
    log(layer(x).tolist())
    layer.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
    log.tried(lambda: layer(x))


def states(lib, log):
    nn = lib.nn
    net = nn.Sequential(_linear(lib, 2, 3), nn.BatchNorm1d(3))
    net[0].register_state_dict_pre_hook(lambda m, prefix, keep: log("pre", prefix, keep))
    net.register_state_dict_post_hook(lambda m, sd, prefix, meta: log("post", list(sd), prefix))
    net[1]._register_state_dict_hook(lambda m, sd, prefix, meta: log("own", prefix, dict(meta)))
    state = net.state_dict()
    log(list(state), dict(state._metadata))

    def forget(m, sd, prefix, meta, strict, missing, unexpected, errors):
        log("load pre", type(m).__name__, prefix, strict)
        sd.pop("0.bias", None)

    net.register_load_state_dict_pre_hook(forget)
    net[1].register_load_state_dict_post_hook(lambda m, keys: log("load post", *keys))
    log.tried(lambda: net.load_state_dict(state))
    log(*net.load_state_dict(state, strict=False))
    net = nn.Sequential(_linear(lib, 2, 3), nn.BatchNorm1d(3))
    state = net.state_dict()
    log(net.load_state_dict(state))
    wrong = {**state, "zz": lib.ones(1), "1.foo.bar": lib.ones(1), "0.weight": lib.ones(1, 1)}
    wrong.pop("0.bias")
    for entries in (wrong, 3, {"0.weight": 3}, {}):
        log.tried(lambda entries=entries: net.load_state_dict(entries))
    log(*net.load_state_dict({"0.weight": lib.ones(3, 2)}, strict=False))
    weight = net[0].weight
    net.load_state_dict({"0.weight": lib.zeros(3, 2)}, strict=False, assign=True)
    log(net[0].weight is weight, type(net[0].weight).__name__, net[0].weight.requires_grad)
    log(list(net.state_dict(prefix="p.")))
    log(net.state_dict(keep_vars=True)["0.weight"] is net[0].weight)

    class Extra(nn.Module):
        def __init__(self, v=1):
            super().__init__()
            self.v = v

        def get_extra_state(self):
            return {"v": self.v}

        def set_extra_state(self, state):
            self.v = state["v"]

    net, other = nn.Sequential(Extra(7)), nn.Sequential(Extra())
    other.load_state_dict(net.state_dict())
    log(list(net.state_dict()), other[0].v)
    log.tried(lambda: other.load_state_dict({}))
    log.tried(lambda: nn.Sequential(nn.ReLU()).load_state_dict({"0._extra_state": 1}))


def access(lib, log):
    nn = lib.nn
    net = nn.Sequential()
    net.add_module("a", nn.Sequential(_linear(lib, 2, 2)))
    ones, parameter = lib.ones(2), lambda: nn.Parameter(lib.ones(1))
    for call in (
            lambda: net.get_submodule("a.0"), lambda: net.get_submodule(""),
            lambda: net.get_submodule("a.x"), lambda: net.get_submodule("a.0.weight"),
            lambda: net.get_parameter("a.0.weight"), lambda: net.get_parameter("a.0.zz"),
            lambda: net.get_parameter("a.0"), lambda: net.get_buffer("a.0.weight"),
            lambda: net.get_buffer("a.0.q"), lambda: net.set_submodule("a.0", nn.ReLU()),
            lambda: net.set_submodule("", nn.ReLU()), lambda: net.set_submodule("a.q", nn.ReLU()),
            lambda: net.set_submodule("a.z", nn.ReLU(), strict=True),
            lambda: net.set_submodule("b.z", nn.ReLU()), lambda: net.set_submodule("a.0", 3),
            lambda: net.add_module("x.y", nn.ReLU()), lambda: net.add_module("", nn.ReLU()),
            lambda: net.add_module("forward", nn.ReLU()), lambda: net.add_module("n", 3),
            lambda: net.add_module(3, nn.ReLU()), lambda: net.add_module("none", None),
            lambda: net.register_buffer("b1", ones),
            lambda: net.register_buffer("b2", ones, persistent=False),
            lambda: net.register_buffer("b3", None), lambda: net.register_buffer("b4", 3),
            lambda: net.register_buffer("b.5", ones), lambda: net.register_buffer("b1", ones),
            lambda: net.register_buffer("a", ones),
            lambda: net.register_parameter("p1", parameter()),
            lambda: net.register_parameter("p2", None), lambda: net.register_parameter("p3", ones),
            lambda: net.register_parameter("b1", parameter()),
            lambda: net.register_parameter("p4", parameter() * 2),
            lambda: setattr(net, "p1", ones), lambda: setattr(net, "p1", None),
            lambda: setattr(net, "b1", 3), lambda: setattr(net, "b1", ones),
            lambda: setattr(net, "a", 3), lambda: setattr(net, "a", None), lambda: net.nothing,
            lambda: delattr(net, "nothing"), lambda: delattr(net, "b1"), lambda: net.b1,
            lambda: net.train("x"), lambda: net.to(lib.int32), lambda: nn.Module(3),
            lambda: nn.Module(a=3), lambda: nn.Module()(3)):
        log.tried(call)
    log(list(net.state_dict()), [n for n, _ in net.named_buffers()],
        [n for n, _ in net.named_children()])

    class Early(nn.Module):
        def __init__(self, assign):
            assign(self)

    for assign in (lambda m: setattr(m, "p", parameter()), lambda m: setattr(m, "m", nn.ReLU()),
                   lambda m: m.register_buffer("b", ones), lambda m: setattr(m, "b",
                                                                             nn.Buffer(ones)),
                   lambda m: m.register_parameter("b", None)):
        log.tried(lambda assign=assign: Early(assign))


def everything(lib, log):
    nn = lib.nn
    layer = _linear(lib, 2, 2)
    net = nn.Sequential(layer, layer, nn.Sequential(layer))
    net.register_buffer("bb", lib.ones(1))
    log([n for n, _ in net.named_parameters()],
        [n for n, _ in net.named_parameters(remove_duplicate=False)],
        [n for n, _ in net.named_modules()],
        [n for n, _ in net.named_modules(remove_duplicate=False, prefix="q")],
        [n for n, _ in net.named_buffers(prefix="z", recurse=False)],
        len([*net.children()]), len([*net.modules()]))
    nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())).apply(lambda m: log(type(m).__name__))
    net = nn.Sequential(_linear(lib, 2, 2), nn.BatchNorm1d(2))

    def dtypes():
        log([str(v.dtype).rpartition(".")[2] for v in net.state_dict().values()])

    for cast in ("double", "half", "bfloat16", "float"):
        getattr(net, cast)()
        dtypes()
    net.to(lib.float64)
    dtypes()
    net.type(lib.float32)
    dtypes()
    net.requires_grad_(False).eval()
    log([p.requires_grad for p in net.parameters()], net.training, net[0].training)
    net.train().requires_grad_()
    net(lib.ones(2, 2)).sum().backward()
    net.zero_grad(False)
    log([p.grad.sum().item() for p in net.parameters()])
    net.zero_grad()
    log([p.grad for p in net.parameters()])


def containers(lib, log):
    nn, one = lib.nn, lib.ones(2)
    for call in (
            lambda: nn.Sequential(3), lambda: nn.ModuleList([3]), lambda: nn.ModuleDict({"a": 3}),
            lambda: nn.ModuleDict({"a.b": nn.ReLU()}), lambda: nn.ModuleList([nn.ReLU()])[1],
            lambda: nn.ModuleList([nn.ReLU()])[-2], lambda: nn.ModuleList([nn.ReLU()])(3),
            lambda: nn.ParameterList([1, 2])[0], lambda: nn.ParameterList([one]),
            lambda: nn.ParameterDict({"a": one})["a"], lambda: nn.ParameterDict({"a": 3}),
            lambda: nn.ModuleList([nn.ReLU()]) + nn.ModuleList([nn.Tanh()]),
            lambda: nn.ModuleDict({"a": nn.ReLU()}).pop("a"),
            lambda: list(nn.ModuleDict({"b": nn.ReLU(), "a": nn.Tanh()})),
            lambda: nn.Sequential(nn.ReLU(), nn.Tanh()).insert(1, nn.GELU()),
            lambda: len(nn.Sequential(nn.ReLU()) * 3), lambda: nn.Sequential(nn.ReLU()) * 0,
            lambda: nn.Sequential(nn.ReLU()).extend([nn.Tanh()]),
            lambda: nn.ParameterList([one]).extend([one]) + [1],
            lambda: nn.ParameterDict({"a": one}) | nn.ParameterDict({"b": one})):
        log.tried(call)


@pytest.mark.parametrize("scene", [hooks, states, access, everything, containers])
@pytest.mark.filterwarnings("ignore")
def test_the_rules_are_pytorchs(scene):
    torch = pytest.importorskip("torch")
    logs = []
    for lib in (torch, facula):
        log = _Log()
        scene(lib, log)
        logs.append(log)
    for k, (want, have) in enumerate(itertools.zip_longest(*logs)):
        assert have == want, f"entry {k}"
    assert len(logs[0]) > 10


def test_hooks_of_all_modules_are_where_pytorch_has_them():
    from facula.nn.modules import module
    seen = []
    handle = module.register_module_forward_pre_hook(lambda m, a: seen.append(type(m).__name__))
    facula.nn.Sequential(facula.nn.ReLU())(facula.ones(1))
    handle.remove()
    facula.nn.ReLU()(facula.ones(1))
    assert seen == ["Sequential", "ReLU"]
