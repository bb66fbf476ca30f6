"""The operations that `ops.py` times: a name, a function of tensors, and the tensors.

A function is called as `fn(t, *tensors)` with `t` either library, whose names are the same; `F` in
a row's function is `t.nn.functional`.  Tensors are written as a letter for what is in them and
their shape; `tensors_of` makes them from a seed, the same for every contender.

    f  normal numbers        p  in (0.05, 1)                 u  in (-1, 1)
    z  zeros and ones        c  complex                      s  symmetric positive definite
    i  0 <= integers < n     n  -n <= integers < n           b  booleans
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CASES", "Case", "tensors_of"]

Spec = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """One row: `back` says whether gradients of its floating-point tensors are timed as well.

    drawn   the result is random: there is no error to speak of
    wrt     how many of the tensors gradients are taken of, from the first; 0 for all
    made    the function returns the one that is timed, which takes nothing: it keeps something
    """

    family: str
    name: str
    fn: Callable[..., Any]
    tensors: tuple[Spec, ...]
    back: bool = True
    drawn: bool = False
    wrt: int = 0
    made: bool = False


def f(*shape: int) -> Spec:
    return ("f", shape)


def p(*shape: int) -> Spec:
    return ("p", shape)


def u(*shape: int) -> Spec:
    return ("u", shape)


def s(*shape: int) -> Spec:
    return ("s", shape)


def z(*shape: int) -> Spec:
    return ("z", shape)


def b(*shape: int) -> Spec:
    return ("b", shape)


def c(*shape: int) -> Spec:
    return ("c", shape)


def i(bound: int, *shape: int) -> Spec:
    return ("i", shape, bound)


def n(bound: int, *shape: int) -> Spec:
    return ("n", shape, bound)


def h(kind: str, *shape: int) -> Spec:
    """Normal numbers of another dtype."""
    return ("f", shape, kind)


def tensors_of(t: Any, case: Case, wide: bool = False) -> list[Any]:
    """The tensors of a case; with `wide` in float64 and complex128."""
    rng = np.random.default_rng(len(case.name))
    return [_tensor(t, rng, spec, wide) for spec in case.tensors]


def _tensor(t: Any, rng: np.random.Generator, spec: Spec, wide: bool) -> Any:
    kind, shape = spec[:2]
    if kind in "in":
        bound = spec[2]
        return t.tensor(rng.integers(0 if kind == "i" else -bound, bound, shape))
    if kind == "b":
        return t.tensor(rng.random(shape) < 0.5)
    if kind == "c":
        a = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        narrow = a.astype(np.complex64)
        return t.tensor(narrow.astype(np.complex128) if wide else narrow)
    if kind == "p":
        a = rng.random(shape) * 0.95 + 0.05
    elif kind == "u":
        a = rng.random(shape) * 2 - 1
    elif kind == "z":
        a = (rng.random(shape) < 0.5) * 1.0
    else:
        a = rng.standard_normal(shape)
    if kind == "s":
        a = a @ a.swapaxes(-1, -2) / shape[-1] + np.eye(shape[-1])
    a = a.astype(np.float32)
    if len(spec) > 2:
        return t.tensor(a).to(getattr(t, spec[2]))
    return t.tensor(a.astype(np.float64) if wide else a)


def _unary(names: str, tensor: Spec, back: bool = True) -> Iterable[Case]:
    for name in names.split():
        yield Case("elementwise", name, lambda t, x, _n=name: getattr(t, _n)(x), (tensor,), back)


def _activation(names: str) -> Iterable[Case]:
    for name in names.split():
        yield Case("elementwise", name,
                   lambda t, x, _n=name: getattr(t.nn.functional, _n)(x), (f(1024, 1024),))


M = f(1024, 1024)
LONG = f(4, 1024, 1024)
IMAGES = f(16, 32, 56, 56)
WORDS = f(64, 128, 256)


def _elementwise() -> Iterable[Case]:
    yield from _unary("exp tanh sin cos erf sigmoid abs neg square expm1 atan sinh", M)
    yield from _unary("log sqrt rsqrt reciprocal log1p lgamma digamma", p(1024, 1024))
    yield from _unary("tan asin acos erfinv", u(512, 512))
    yield from _unary("floor round sign isnan isfinite", M, False)
    yield from _activation("relu gelu silu softplus elu leaky_relu mish hardswish logsigmoid selu")
    k = "elementwise"
    yield Case(k, "add", lambda t, x, y: x + y, (M, M))
    yield Case(k, "mul", lambda t, x, y: x * y, (M, M))
    yield Case(k, "div", lambda t, x, y: x / y, (M, p(1024, 1024)))
    yield Case(k, "add row", lambda t, x, y: x + y, (M, f(1024)))
    yield Case(k, "add column", lambda t, x, y: x + y, (M, f(1024, 1)))
    yield Case(k, "add transposed", lambda t, x, y: x + y.T, (M, M))
    yield Case(k, "add, 4M", lambda t, x, y: x + y, (LONG, LONG))
    yield Case(k, "mul, 64K", lambda t, x, y: x * y, (f(256, 256), f(256, 256)))
    yield Case(k, "pow 3", lambda t, x: x ** 3, (M,))
    yield Case(k, "pow 2.5", lambda t, x: x ** 2.5, (p(1024, 1024),))
    yield Case(k, "pow tensor", lambda t, x, y: x ** y, (p(1024, 1024), M))
    yield Case(k, "atan2", lambda t, x, y: t.atan2(x, y), (M, M))
    yield Case(k, "hypot", lambda t, x, y: t.hypot(x, y), (M, M))
    yield Case(k, "maximum", lambda t, x, y: t.maximum(x, y), (M, M))
    yield Case(k, "fmod", lambda t, x, y: t.fmod(x, y), (M, p(1024, 1024)), False)
    yield Case(k, "remainder", lambda t, x, y: t.remainder(x, y), (M, p(1024, 1024)), False)
    yield Case(k, "floor_divide", lambda t, x, y: t.floor_divide(x, y), (M, p(1024, 1024)), False)
    yield Case(k, "where", lambda t, m, x, y: t.where(m, x, y), (b(1024, 1024), M, M))
    yield Case(k, "clamp", lambda t, x: x.clamp(-1, 1), (M,))
    yield Case(k, "masked_fill", lambda t, x, m: x.masked_fill(m, 0.5), (M, b(1024, 1024)))
    yield Case(k, "lerp", lambda t, x, y: t.lerp(x, y, 0.3), (M, M))
    yield Case(k, "addcmul", lambda t, x, y, z: t.addcmul(x, y, z), (M, M, M))
    yield Case(k, "compare", lambda t, x, y: x < y, (M, M), False)
    yield Case(k, "isclose", lambda t, x, y: t.isclose(x, y), (M, M), False)
    yield Case(k, "complex mul", lambda t, x, y: x * y, (c(512, 512), c(512, 512)))
    yield Case(k, "complex exp", lambda t, x: x.exp(), (c(512, 512),))
    yield Case(k, "complex abs", lambda t, x: x.abs(), (c(512, 512),))
    yield Case(k, "complex div", lambda t, x, y: x / y, (c(512, 512), c(512, 512)))
    yield Case(k, "complex angle", lambda t, x: t.angle(x), (c(512, 512),), False)


def _integers() -> Iterable[Case]:
    k, big = "integers", n(1000, 1024, 1024)
    some = ("i", (1024, 1024), 1000)
    yield Case(k, "add", lambda t, x, y: x + y, (big, big), False)
    yield Case(k, "mul", lambda t, x, y: x * y, (big, big), False)
    yield Case(k, "floor_divide", lambda t, x, y: x // (y + 1), (big, some), False)
    yield Case(k, "remainder", lambda t, x, y: x % (y + 1), (big, some), False)
    yield Case(k, "true divide", lambda t, x, y: x / (y + 1), (big, some), False)
    yield Case(k, "bitwise_and", lambda t, x, y: x & y, (big, big), False)
    yield Case(k, "shift", lambda t, x: x << 3, (big,), False)
    yield Case(k, "equal", lambda t, x, y: x == y, (big, big), False)
    yield Case(k, "logical_and", lambda t, x, y: x & y, (b(1024, 1024), b(1024, 1024)), False)
    yield Case(k, "logical_not", lambda t, x: ~x, (b(1024, 1024),), False)
    yield Case(k, "sum", lambda t, x: x.sum(-1), (big,), False)
    yield Case(k, "sum of booleans", lambda t, x: x.sum(), (b(1024, 1024),), False)
    yield Case(k, "int32 add", lambda t, x: x.to(t.int32) + 7, (big,), False)
    yield Case(k, "arange int32", lambda t: t.arange(1 << 20, dtype=t.int32), (), False)
    yield Case(k, "arange", lambda t: t.arange(1 << 20), (), False)
    yield Case(k, "linspace", lambda t: t.linspace(0, 1, 1 << 20), (), False)
    yield Case(k, "eye", lambda t: t.eye(1024), (), False)
    yield Case(k, "zeros", lambda t: t.zeros(1024, 1024), (), False)


def _conversions() -> Iterable[Case]:
    k = "dtypes"
    for to in ("bfloat16", "float16", "float64", "int64", "int32", "int8", "uint8", "bool"):
        yield Case(k, f"float32 to {to}", lambda t, x, _d=to: x.to(getattr(t, _d)),
                   (p(1024, 1024),), False)
    yield Case(k, "bfloat16 to float32", lambda t, x: x.float(), (h("bfloat16", 1024, 1024),),
               False)
    yield Case(k, "float16 to float32", lambda t, x: x.float(), (h("float16", 1024, 1024),), False)
    yield Case(k, "int64 to float32", lambda t, x: x.float(), (i(99, 1024, 1024),), False)
    yield Case(k, "int8 to float32", lambda t, x: x.float(), (h("int8", 1024, 1024),), False)
    yield Case(k, "bfloat16 add", lambda t, x, y: x + y,
               (h("bfloat16", 1024, 1024), h("bfloat16", 1024, 1024)), False)
    yield Case(k, "float16 exp", lambda t, x: x.exp(), (h("float16", 1024, 1024),), False)


def _reductions() -> Iterable[Case]:
    k, three = "reductions", f(64, 128, 128)
    for name in ("sum", "mean", "var", "amax", "logsumexp", "norm"):
        for where, dims in (("all", (0, 1, 2)), ("last", -1), ("first", 0), ("middle", 1)):
            yield Case(k, f"{name} {where}", lambda t, x, _n=name, _d=dims:
                       getattr(t, _n)(x, dim=_d), (three,), name in ("sum", "var", "logsumexp"))
    yield Case(k, "sum of transposed", lambda t, x: x.T.sum(0), (M,))
    yield Case(k, "sum of every third", lambda t, x: x[:, ::3].sum(-1), (M,))
    yield Case(k, "sum, 64 columns", lambda t, x: x.sum(-1), (f(16384, 64),))
    yield Case(k, "sum, 4M", lambda t, x: x.sum(), (LONG,))
    yield Case(k, "prod", lambda t, x: x.prod(-1), (p(8192, 32),))
    yield Case(k, "max last", lambda t, x: t.max(x, dim=-1)[0], (M,))
    yield Case(k, "max first", lambda t, x: t.max(x, dim=0)[0], (M,))
    yield Case(k, "argmax last", lambda t, x: x.argmax(-1), (M,), False)
    yield Case(k, "argmax first", lambda t, x: x.argmax(0), (M,), False)
    yield Case(k, "argmax all", lambda t, x: x.argmax(), (M,), False)
    yield Case(k, "argmax of 10", lambda t, x: x.argmax(-1), (f(65536, 10),), False)
    yield Case(k, "any", lambda t, x: (x > 4).any(-1), (M,), False)
    yield Case(k, "all", lambda t, x: x.all(), (b(1024, 1024),), False)
    yield Case(k, "cumsum last", lambda t, x: x.cumsum(-1), (M,))
    yield Case(k, "cumsum first", lambda t, x: x.cumsum(0), (M,))
    yield Case(k, "cumsum, 1M", lambda t, x: x.cumsum(0), (f(1 << 20),))
    yield Case(k, "cumprod", lambda t, x: x.cumprod(-1), (p(8192, 32),))
    yield Case(k, "cummax", lambda t, x: x.cummax(-1)[0], (M,), False)
    yield Case(k, "std_mean", lambda t, x: t.std_mean(x, dim=-1), (M,))
    yield Case(k, "softmax", lambda t, x: x.softmax(-1), (M,))
    yield Case(k, "softmax first", lambda t, x: x.softmax(0), (M,))
    yield Case(k, "softmax of 10", lambda t, x: x.softmax(-1), (f(65536, 10),))
    yield Case(k, "log_softmax", lambda t, x: x.log_softmax(-1), (f(256, 10000),))
    yield Case(k, "layer_norm", lambda t, x, w, v: t.nn.functional.layer_norm(x, (256,), w, v),
               (WORDS, f(256), f(256)))
    yield Case(k, "batch_norm", lambda t, x, w, v: t.nn.functional.batch_norm(
        x, None, None, w, v, True), (IMAGES, f(32), f(32)))
    yield Case(k, "group_norm", lambda t, x, w, v: t.nn.functional.group_norm(x, 8, w, v),
               (IMAGES, f(32), f(32)))
    yield Case(k, "normalize", lambda t, x: t.nn.functional.normalize(x, dim=-1), (M,))
    yield Case(k, "cosine_similarity", lambda t, x, y: t.cosine_similarity(x, y), (M, M))


def _movement() -> Iterable[Case]:
    k, four = "movement", f(16, 64, 56, 56)
    yield Case(k, "clone", lambda t, x: x.clone(), (LONG,))
    yield Case(k, "transpose", lambda t, x: x.T.contiguous(), (f(2048, 1024),))
    yield Case(k, "transpose of images", lambda t, x: x.permute(0, 2, 3, 1).contiguous(), (four,))
    yield Case(k, "transpose back", lambda t, x: x.permute(0, 3, 1, 2).contiguous(),
               (f(16, 56, 56, 64),))
    yield Case(k, "heads", lambda t, x: x.view(16, 128, 8, 64).transpose(1, 2).contiguous(),
               (f(16, 128, 512),))
    yield Case(k, "permute 0132", lambda t, x: x.transpose(-1, -2).contiguous(),
               (f(64, 8, 64, 64),))
    yield Case(k, "permute 210", lambda t, x: x.permute(2, 1, 0).contiguous(), (f(128, 64, 128),))
    yield Case(k, "transpose of 3", lambda t, x: x.T.contiguous(), (f(262144, 3),))
    yield Case(k, "transpose bfloat16", lambda t, x: x.T.contiguous(),
               (h("bfloat16", 1024, 1024),), False)
    yield Case(k, "transpose int64", lambda t, x: x.T.contiguous(), (i(9, 1024, 1024),), False)
    yield Case(k, "every second", lambda t, x: x[:, ::2].contiguous(), (M,))
    yield Case(k, "columns of 1024", lambda t, x: x[:, 100:612].contiguous(), (M,))
    yield Case(k, "cat rows", lambda t, x, y: t.cat([x, y]), (M, M))
    yield Case(k, "cat columns", lambda t, x, y: t.cat([x, y], -1), (M, M))
    yield Case(k, "cat of 32", lambda t, *x: t.cat(x, -1), (f(512, 64),) * 32)
    yield Case(k, "stack", lambda t, *x: t.stack(x), (f(256, 256),) * 16)
    yield Case(k, "stack last", lambda t, x, y: t.stack([x, y], -1), (M, M))
    yield Case(k, "roll", lambda t, x: x.roll(5, -1), (M,))
    yield Case(k, "flip", lambda t, x: x.flip(-1), (M,))
    yield Case(k, "flip images", lambda t, x: x.flip(-1), (IMAGES,))
    yield Case(k, "pad", lambda t, x: t.nn.functional.pad(x, (1, 1, 1, 1)), (IMAGES,))
    yield Case(k, "pad reflect", lambda t, x: t.nn.functional.pad(x, (2, 2, 2, 2), "reflect"),
               (IMAGES,))
    yield Case(k, "repeat", lambda t, x: x.repeat(2, 3), (f(512, 512),))
    yield Case(k, "repeat_interleave", lambda t, x: x.repeat_interleave(4, 0), (f(512, 512),))
    yield Case(k, "expand", lambda t, x: x.expand(1024, 1024).contiguous(), (f(1024, 1),))
    yield Case(k, "unfold images", lambda t, x: t.nn.functional.unfold(x, 3, padding=1),
               (f(4, 32, 56, 56),))
    yield Case(k, "fold", lambda t, x: t.nn.functional.fold(x, (56, 56), 3, padding=1),
               (f(4, 288, 3136),))
    yield Case(k, "unfold windows", lambda t, x: x.unfold(-1, 16, 8).contiguous(), (f(64, 8192),))
    yield Case(k, "pixel_shuffle", lambda t, x: t.nn.functional.pixel_shuffle(x, 2), (IMAGES,))
    yield Case(k, "tril", lambda t, x: x.tril(), (M,))
    yield Case(k, "diagonal", lambda t, x: t.diag_embed(x), (f(64, 128),))
    yield Case(k, "split and add", lambda t, x: sum(x.chunk(4, -1)), (M,))


def _indexing() -> Iterable[Case]:
    k = "indexing"
    yield Case(k, "index_select rows", lambda t, x, j: x.index_select(0, j), (M, i(1024, 1024)))
    yield Case(k, "index_select columns", lambda t, x, j: x.index_select(1, j), (M, i(1024, 1024)))
    yield Case(k, "rows by list", lambda t, x, j: x[j], (M, i(1024, 2048)))
    yield Case(k, "points", lambda t, x, j, l: x[j, l], (M, i(1024, 65536), i(1024, 65536)))
    yield Case(k, "gather", lambda t, x, j: x.gather(-1, j), (M, i(1024, 1024, 256)))
    yield Case(k, "gather one", lambda t, x, j: x.gather(-1, j), (f(4096, 1000), i(1000, 4096, 1)))
    yield Case(k, "take_along_dim", lambda t, x, j: t.take_along_dim(x, j, 0),
               (M, i(1024, 256, 1024)))
    yield Case(k, "scatter_add", lambda t, x, j, y: x.scatter_add(-1, j, y),
               (M, i(1024, 1024, 256), f(1024, 256)))
    yield Case(k, "scatter", lambda t, x, j: x.scatter(-1, j, 1.0), (M, i(1024, 1024, 16)))
    yield Case(k, "index_add", lambda t, x, j, y: x.index_add(0, j, y),
               (f(1000, 128), i(1000, 8192), f(8192, 128)))
    yield Case(k, "index_put", lambda t, x, j, y: x.index_put((j,), y),
               (f(8192, 128), i(8192, 1024), f(1024, 128)))
    yield Case(k, "boolean mask", lambda t, x, m: x[m], (M, b(1024, 1024)), False)
    yield Case(k, "mask rows", lambda t, x, m: x[m], (M, b(1024)), False)
    yield Case(k, "masked_select", lambda t, x, m: t.masked_select(x, m), (M, b(1024, 1024)), False)
    yield Case(k, "nonzero", lambda t, m: m.nonzero(), (b(1024, 1024),), False)
    yield Case(k, "masked_scatter", lambda t, x, m, y: x.masked_scatter(m, y),
               (M, b(1024, 1024), M), False)
    yield Case(k, "embedding", lambda t, w, j: t.nn.functional.embedding(j, w),
               (f(10000, 256), i(10000, 64, 128)))
    yield Case(k, "embedding_bag", lambda t, w, j: t.nn.functional.embedding_bag(j, w),
               (f(10000, 128), i(10000, 256, 64)))
    yield Case(k, "one_hot", lambda t, j: t.nn.functional.one_hot(j, 1000), (i(1000, 1024),), False)
    yield Case(k, "take", lambda t, x, j: t.take(x, j), (M, i(1 << 20, 65536)))


def _sorting() -> Iterable[Case]:
    k = "sorting"
    yield Case(k, "sort", lambda t, x: x.sort(-1)[0], (M,))
    yield Case(k, "sort, 1M", lambda t, x: x.sort()[0], (f(1 << 20),))
    yield Case(k, "argsort", lambda t, x: x.argsort(-1), (M,), False)
    yield Case(k, "sort first", lambda t, x: x.sort(0)[0], (M,), False)
    yield Case(k, "sort int64", lambda t, x: x.sort(-1)[0], (i(1 << 40, 1024, 1024),), False)
    yield Case(k, "topk 5", lambda t, x: x.topk(5)[0], (M,))
    yield Case(k, "topk 50 of 50000", lambda t, x: x.topk(50)[0], (f(32, 50000),), False)
    yield Case(k, "topk 5 of 10", lambda t, x: x.topk(5)[0], (f(16384, 10),), False)
    yield Case(k, "kthvalue", lambda t, x: x.kthvalue(100)[0], (M,), False)
    yield Case(k, "median", lambda t, x: x.median(-1)[0], (M,), False)
    yield Case(k, "median all", lambda t, x: x.median(), (M,), False)
    yield Case(k, "quantile", lambda t, x: t.quantile(x, 0.9, dim=-1), (M,), False)
    yield Case(k, "unique", lambda t, x: t.unique(x), (i(5000, 1 << 18),), False)
    yield Case(k, "searchsorted", lambda t, x, y: t.searchsorted(x.cumsum(0), y * 1000),
               (p(10000), p(1 << 18)), False)
    yield Case(k, "bucketize", lambda t, x: t.bucketize(x, t.linspace(-3, 3, 65)), (M,), False)
    yield Case(k, "bincount", lambda t, x: t.bincount(x), (i(1000, 1 << 20),), False)
    yield Case(k, "histc", lambda t, x: t.histc(x, 100, -3, 3), (f(1 << 20),), False)
    yield Case(k, "isin", lambda t, x, y: t.isin(x, y), (i(5000, 1 << 18), i(5000, 500)), False)


def _random() -> Iterable[Case]:
    k = "random"
    rows = [
        ("rand", lambda t: t.rand(1024, 1024), ()), ("randn", lambda t: t.randn(1024, 1024), ()),
        ("randint", lambda t: t.randint(0, 100, (1024, 1024)), ()),
        ("bernoulli", lambda t, x: t.bernoulli(x), (p(1024, 1024),)),
        ("multinomial", lambda t, x: t.multinomial(x, 1), (p(256, 1000),)),
        ("multinomial of 50000", lambda t, x: t.multinomial(x, 1), (p(8, 50000),)),
        ("multinomial, 1000 times", lambda t, x: t.multinomial(x, 1000, True), (p(10000),)),
        ("randperm", lambda t: t.randperm(100000), ()),
        ("poisson", lambda t, x: t.poisson(x), (p(512, 512),)),
        ("exponential", lambda t, x: t.empty_like(x).exponential_(), (p(512, 512),)),
    ]
    for name, fn, tensors in rows:
        yield Case(k, name, fn, tensors, False, drawn=True)
    yield Case(k, "dropout", lambda t, x: t.nn.functional.dropout(x, 0.1), (M,), drawn=True)


def _products() -> Iterable[Case]:
    k = "products"
    yield Case(k, "bmm of 512, 32", lambda t, x, y: t.bmm(x, y), (f(512, 32, 32), f(512, 32, 32)))
    yield Case(k, "bmm of 4096, 4", lambda t, x, y: t.bmm(x, y), (f(4096, 4, 4), f(4096, 4, 4)))
    yield Case(k, "bmm of 64, 128", lambda t, x, y: t.bmm(x, y), (f(64, 128, 64), f(64, 64, 128)))
    yield Case(k, "mm 512", lambda t, x, y: x @ y, (f(512, 512), f(512, 512)))
    yield Case(k, "mm tall", lambda t, x, y: x @ y, (f(65536, 16), f(16, 16)))
    yield Case(k, "mm wide sum", lambda t, x, y: x @ y, (f(16, 65536), f(65536, 16)))
    yield Case(k, "mv", lambda t, x, y: x @ y, (f(2048, 2048), f(2048)))
    yield Case(k, "vm", lambda t, x, y: x @ y, (f(2048), f(2048, 2048)))
    yield Case(k, "dot", lambda t, x, y: t.dot(x, y), (f(1 << 20), f(1 << 20)))
    yield Case(k, "outer", lambda t, x, y: t.outer(x, y), (f(1024), f(1024)))
    yield Case(k, "linear", lambda t, x, w, v: t.nn.functional.linear(x, w, v),
               (f(256, 1024), f(1024, 1024), f(1024)))
    yield Case(k, "mm float64", lambda t, x, y: x @ y,
               (h("float64", 512, 512), h("float64", 512, 512)), False)
    yield Case(k, "mm int64", lambda t, x, y: x @ y, (n(9, 256, 256), n(9, 256, 256)), False)
    yield Case(k, "mm complex", lambda t, x, y: x @ y, (c(256, 256), c(256, 256)), False)
    yield Case(k, "einsum bij,bjk", lambda t, x, y: t.einsum("bij,bjk->bik", x, y),
               (f(32, 128, 128), f(32, 128, 128)))
    yield Case(k, "einsum bhid,bhjd", lambda t, x, y: t.einsum("bhid,bhjd->bhij", x, y),
               (f(8, 8, 128, 64), f(8, 8, 128, 64)))
    yield Case(k, "einsum bihd,bjhd", lambda t, x, y: t.einsum("bihd,bjhd->bhij", x, y),
               (f(8, 128, 8, 64), f(8, 128, 8, 64)))
    yield Case(k, "einsum bi,bj", lambda t, x, y: t.einsum("bi,bj->bij", x, y),
               (f(256, 64), f(256, 64)))
    yield Case(k, "einsum bn,anm,bm", lambda t, x, w, y: t.einsum("bn,anm,bm->ba", x, w, y),
               (f(64, 64), f(64, 64, 64), f(64, 64)))
    yield Case(k, "einsum trace", lambda t, x: t.einsum("bii->b", x), (f(64, 128, 128),))
    yield Case(k, "cdist", lambda t, x, y: t.cdist(x, y), (f(1024, 64), f(1024, 64)))
    yield Case(k, "cdist, 1", lambda t, x, y: t.cdist(x, y, p=1.0), (f(512, 32), f(512, 32)))
    yield Case(k, "kron", lambda t, x, y: t.kron(x, y), (f(32, 32), f(32, 32)))
    yield Case(k, "attention", lambda t, q, w, v: t.nn.functional.scaled_dot_product_attention(
        q, w, v), (f(8, 8, 128, 64),) * 3)
    yield Case(k, "cross", lambda t, x, y: t.cross(x, y, dim=-1), (f(65536, 3), f(65536, 3)))
    yield Case(k, "bilinear", lambda t, x, y, w: t.nn.functional.bilinear(x, y, w),
               (f(128, 64), f(128, 64), f(32, 64, 64)))


def _convolutions() -> Iterable[Case]:
    k = "convolutions"

    def conv(name: str, what: str, x: Spec, w: Spec, **more: Any) -> Case:
        return Case(k, name, lambda t, x, w: getattr(t.nn.functional, what)(x, w, **more), (x, w))

    image = f(8, 64, 28, 28)
    yield conv("conv2d 3x3", "conv2d", image, f(64, 64, 3, 3), padding=1)
    yield conv("conv2d 1x1", "conv2d", image, f(128, 64, 1, 1))
    yield conv("conv2d 7x7 / 2", "conv2d", f(4, 3, 112, 112), f(64, 3, 7, 7), stride=2, padding=3)
    yield conv("depthwise 3x3", "conv2d", IMAGES, f(32, 1, 3, 3), padding=1, groups=32)
    yield conv("depthwise 7x7", "conv2d", image, f(64, 1, 7, 7), padding=3, groups=64)
    yield conv("8 groups", "conv2d", image, f(64, 8, 3, 3), padding=1, groups=8)
    yield conv("dilated", "conv2d", image, f(64, 64, 3, 3), padding=2, dilation=2)
    yield conv("transposed 4x4 / 2", "conv_transpose2d", f(8, 64, 14, 14), f(64, 32, 4, 4),
               stride=2, padding=1)
    yield conv("transposed 3x3", "conv_transpose2d", image, f(64, 64, 3, 3), padding=1)
    yield conv("conv1d", "conv1d", f(16, 64, 512), f(64, 64, 5), padding=2)
    yield conv("conv1d dilated", "conv1d", f(8, 64, 1024), f(64, 64, 3), padding=8, dilation=8)
    yield conv("conv1d depthwise", "conv1d", f(16, 64, 1024), f(64, 1, 4), padding=3, groups=64)
    yield conv("conv3d", "conv3d", f(2, 16, 16, 32, 32), f(32, 16, 3, 3, 3), padding=1)
    k2 = "pooling"
    yield Case(k2, "max_pool 2", lambda t, x: t.nn.functional.max_pool2d(x, 2), (IMAGES,))
    yield Case(k2, "max_pool 3 / 2", lambda t, x: t.nn.functional.max_pool2d(x, 3, 2, 1), (IMAGES,))
    yield Case(k2, "avg_pool 2", lambda t, x: t.nn.functional.avg_pool2d(x, 2), (IMAGES,))
    yield Case(k2, "avg_pool 3 / 1", lambda t, x: t.nn.functional.avg_pool2d(x, 3, 1, 1), (IMAGES,))
    yield Case(k2, "adaptive avg 1", lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, 1),
               (IMAGES,))
    yield Case(k2, "adaptive avg 6", lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, 6),
               (IMAGES,))
    yield Case(k2, "adaptive max 7", lambda t, x: t.nn.functional.adaptive_max_pool2d(x, 7),
               (IMAGES,))
    yield Case(k2, "max_pool1d", lambda t, x: t.nn.functional.max_pool1d(x, 2), (f(64, 64, 512),))
    yield Case(k2, "max_pool3d", lambda t, x: t.nn.functional.max_pool3d(x, 2),
               (f(4, 16, 16, 32, 32),))
    yield Case(k2, "max_unpool", lambda t, x: t.nn.functional.max_unpool2d(
        *t.nn.functional.max_pool2d(x, 2, return_indices=True), 2), (IMAGES,))
    for mode in ("nearest", "bilinear", "bicubic"):
        yield Case(k2, f"interpolate {mode}", lambda t, x, _m=mode: t.nn.functional.interpolate(
            x, scale_factor=2, mode=_m), (f(8, 16, 56, 56),))
    yield Case(k2, "interpolate down", lambda t, x: t.nn.functional.interpolate(
        x, size=(40, 40), mode="bilinear"), (IMAGES,))
    yield Case(k2, "interpolate area", lambda t, x: t.nn.functional.interpolate(
        x, size=(14, 14), mode="area"), (IMAGES,))
    yield Case(k2, "grid_sample", lambda t, x, g: t.nn.functional.grid_sample(
        x, g, align_corners=False), (f(4, 16, 64, 64), u(4, 64, 64, 2)))
    yield Case(k2, "affine_grid", lambda t, a: t.nn.functional.affine_grid(
        a, (8, 3, 128, 128), align_corners=False), (f(8, 2, 3),))


def _transforms() -> Iterable[Case]:
    k = "transforms"
    yield Case(k, "fft", lambda t, x: t.fft.fft(x), (c(256, 1024),))
    yield Case(k, "rfft", lambda t, x: t.fft.rfft(x), (f(256, 2048),))
    yield Case(k, "irfft", lambda t, x: t.fft.irfft(x), (c(256, 1025),), False)
    yield Case(k, "fft2", lambda t, x: t.fft.fft2(x), (c(16, 128, 128),))
    yield Case(k, "fft of 1000", lambda t, x: t.fft.fft(x), (c(256, 1000),), False)
    yield Case(k, "stft", lambda t, x: t.stft(x, 512, 128, window=t.hann_window(512),
                                              return_complex=True), (f(4, 65536),))
    k = "linalg"
    yield Case(k, "inv", lambda t, x: t.linalg.inv(x), (s(256, 256),))
    yield Case(k, "inv of 1024, 4", lambda t, x: t.linalg.inv(x), (s(1024, 4, 4),))
    yield Case(k, "solve", lambda t, x, y: t.linalg.solve(x, y), (s(256, 256), f(256, 64)))
    yield Case(k, "solve of 256, 16", lambda t, x, y: t.linalg.solve(x, y),
               (s(256, 16, 16), f(256, 16, 4)))
    yield Case(k, "cholesky", lambda t, x: t.linalg.cholesky(x), (s(512, 512),))
    yield Case(k, "cholesky of 256, 16", lambda t, x: t.linalg.cholesky(x), (s(256, 16, 16),))
    yield Case(k, "triangular", lambda t, x, y: t.linalg.solve_triangular(x, y, upper=False),
               (s(512, 512), f(512, 64)), False)
    yield Case(k, "svdvals", lambda t, x: t.linalg.svdvals(x), (f(128, 128),))
    yield Case(k, "svd", lambda t, x: t.linalg.svd(x, full_matrices=False)[1], (f(256, 64),))
    yield Case(k, "qr", lambda t, x: t.linalg.qr(x)[1].abs(), (f(256, 128),))
    yield Case(k, "eigh", lambda t, x: t.linalg.eigh(x)[0], (s(128, 128),))
    yield Case(k, "eigvals", lambda t, x: t.linalg.eigvals(x).abs().sum(), (f(64, 64),), False)
    yield Case(k, "det of 4096, 3", lambda t, x: t.linalg.det(x), (s(4096, 3, 3),))
    yield Case(k, "slogdet", lambda t, x: t.linalg.slogdet(x)[1], (s(256, 256),))
    yield Case(k, "lstsq", lambda t, x, y: t.linalg.lstsq(x, y)[0], (f(512, 32), f(512, 4)), False)
    yield Case(k, "pinv", lambda t, x: t.linalg.pinv(x), (f(256, 64),), False)
    yield Case(k, "matrix_exp", lambda t, x: t.linalg.matrix_exp(x * 0.1), (f(128, 128),), False)


def _losses() -> Iterable[Case]:
    k = "losses"
    two = (M, M)
    yield Case(k, "cross_entropy", lambda t, x, y: t.nn.functional.cross_entropy(x, y),
               (f(4096, 1000), i(1000, 4096)))
    yield Case(k, "cross_entropy of 10", lambda t, x, y: t.nn.functional.cross_entropy(x, y),
               (f(65536, 10), i(10, 65536)))
    yield Case(k, "cross_entropy smooth", lambda t, x, y: t.nn.functional.cross_entropy(
        x, y, label_smoothing=0.1), (f(1024, 1000), i(1000, 1024)))
    yield Case(k, "cross_entropy of pixels", lambda t, x, y: t.nn.functional.cross_entropy(x, y),
               (f(4, 21, 128, 128), i(21, 4, 128, 128)))
    yield Case(k, "nll_loss", lambda t, x, y: t.nn.functional.nll_loss(x, y),
               (f(4096, 1000), i(1000, 4096)))
    yield Case(k, "mse_loss", lambda t, x, y: t.nn.functional.mse_loss(x, y), two)
    yield Case(k, "l1_loss", lambda t, x, y: t.nn.functional.l1_loss(x, y), two)
    yield Case(k, "smooth_l1", lambda t, x, y: t.nn.functional.smooth_l1_loss(x, y), two)
    yield Case(k, "bce", lambda t, x, y: t.nn.functional.binary_cross_entropy(x.sigmoid(), y),
               (M, z(1024, 1024)), wrt=1)
    yield Case(k, "bce with logits", lambda t, x, y:
               t.nn.functional.binary_cross_entropy_with_logits(x, y), (M, z(1024, 1024)), wrt=1)
    yield Case(k, "kl_div", lambda t, x, y: t.nn.functional.kl_div(
        x.log_softmax(-1), y, reduction="batchmean"), (M, p(1024, 1024)), wrt=1)
    yield Case(k, "ctc", lambda t, x, y: t.nn.functional.ctc_loss(
        x.log_softmax(-1), y + 1, (100,) * 16, (20,) * 16), (f(100, 16, 50), i(48, 16, 20)))
    yield Case(k, "cosine", lambda t, x, y: t.nn.functional.cosine_embedding_loss(
        x, y, t.ones(1024)), two)
    yield Case(k, "triplet", lambda t, x, y, z: t.nn.functional.triplet_margin_loss(x, y, z),
               (f(1024, 256),) * 3)
    yield Case(k, "huber", lambda t, x, y: t.nn.functional.huber_loss(x, y), two)


def _optimizers() -> Iterable[Case]:
    def step(t: Any, weights: Any, name: str, **more: Any) -> Callable[[], Any]:
        for w in weights:
            w.requires_grad_()
            w.grad = t.ones_like(w) * 0.01
        optimizer = getattr(t.optim, name)(weights, lr=1e-3, **more)

        def run() -> Any:
            optimizer.step()
            return [w.detach() for w in weights]
        return run

    weights = (f(1024, 1024), f(1024)) * 10                        # ten million numbers
    for label, name, more in (("SGD", "SGD", {}), ("momentum", "SGD", {"momentum": 0.9}),
                              ("Adam", "Adam", {}), ("AdamW", "AdamW", {}),
                              ("RMSprop", "RMSprop", {}), ("Adagrad", "Adagrad", {})):
        yield Case("optimizers", label, lambda t, *x, _n=name, _m=more: step(t, x, _n, **_m),
                   weights, False, made=True)
    yield Case("optimizers", "clip_grad_norm", lambda t, *x: _clipped(t, x), weights, False,
               made=True)


def _clipped(t: Any, weights: Any) -> Callable[[], Any]:
    for w in weights:
        w.requires_grad_()
        w.grad = t.ones_like(w)
    return lambda: t.nn.utils.clip_grad_norm_(weights, 1.0)


CASES: tuple[Case, ...] = (
    *_elementwise(), *_integers(), *_conversions(), *_reductions(), *_movement(), *_indexing(),
    *_sorting(), *_random(), *_products(), *_convolutions(), *_transforms(), *_losses(),
    *_optimizers())
