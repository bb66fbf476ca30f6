"""The fuzzer's operations that move elements: views of all kinds, and copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.operations import Draft, axis_of, basic_key, numbers, numbers_below, op

__all__: list[str] = []


# ---------------------------------------------------------------- views

@op(5, smooth=True)
def sliced(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    key = basic_key(b, b.array(x).shape)
    return Draft(f"OUT = {x}[{key}]", f"OUT = {x}[{key}]", (x,), view=True)


@op(3, smooth=True)
def turned(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 1)
    if x is None:
        return None
    order = list(range(b.array(x).ndim))
    b.rng.shuffle(order)
    args = ", ".join(map(str, order))
    if b.rng.random() < 0.4 and len(order) == 2:
        return Draft(f"OUT = {x}.t()", f"OUT = {x}.T", (x,), view=True)
    return Draft(f"OUT = {x}.permute({args})", f"OUT = {x}.transpose({args})", (x,), view=True)


@op(2, smooth=True)
def viewed(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    n = b.array(x).size
    shapes = [(n,), (1, n), (n, 1)] + [(k, n // k) for k in (2, 3) if n % k == 0]
    shapes += [(2, n // 4, 2)] if n % 4 == 0 else []
    shape = b.rng.choice(shapes)
    return Draft(f"OUT = {x}.view({shape})", f"OUT = M.view({x}, {shape})", (x,), view=True)


@op(1, smooth=True)
def reshaped(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    return Draft(f"OUT = {x}.reshape(-1).clone()" if b.array(x).size else f"OUT = {x}.clone()",
                 f"OUT = {x}.reshape(-1).copy()" if b.array(x).size else f"OUT = {x}.copy()",
                 (x,), exact=True)


@op(1.5, smooth=True)
def sized(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim < 5)
    if x is None:
        return None
    at = b.rng.randint(0, b.array(x).ndim)
    return Draft(f"OUT = {x}.unsqueeze({at})", f"OUT = np.expand_dims({x}, {at})", (x,), view=True)


@op(1.5, smooth=True)
def expanded(b: Any) -> Draft | None:
    x = b.pick(lambda a: 1 in a.shape or a.ndim < 3)
    if x is None:
        return None
    shape = tuple(b.rng.choice([2, 3]) if n == 1 else n for n in b.array(x).shape)
    if b.rng.random() < 0.4:
        shape = (2, *shape)
    return Draft(f"OUT = {x}.expand({shape})", f"OUT = M.expand({x}, {shape})", (x,), view=True)


@op(0.7, smooth=True)
def diagonal(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 1)
    if x is None:
        return None
    k = b.rng.choice([0, 0, 1, -1])
    return Draft(f"OUT = {x}.diagonal({k})",
                 f"OUT = {x}.diagonal({k}); OUT.flags.writeable = True", (x,), view=True)


@op(0.7, smooth=True)
def strided(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.size >= 4 and a.flags.c_contiguous)
    if x is None:
        return None
    b.overlaps = True       # PyTorch's results keep their operands' layout, and this tells
    n = b.array(x).size
    shape, strides = b.rng.choice([((2, 2), (1, 2)), ((2,), (3,)), ((n - 1, 2), (1, 1)),
                                   ((2, n // 2), (n // 2, 1))])
    if len(shape) == 2 and strides == (1, 1):
        return Draft(f"OUT = {x}.as_strided({shape}, {strides}, {x}.storage_offset()).clone()",
                     f"OUT = M.strided({x}, {shape}, {strides}).copy()", (x,), exact=True)
    return Draft(f"OUT = {x}.as_strided({shape}, {strides}, {x}.storage_offset())",
                 f"OUT = M.strided({x}, {shape}, {strides})", (x,), view=True)


@op(0.6, smooth=True)
def parts(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0 and a.shape[0] >= 2)
    if x is None:
        return None
    n = b.array(x).shape[0]
    k = b.rng.randrange(n)
    if b.rng.random() < 0.5:
        return Draft(f"OUT = {x}.unbind(0)[{k}]", f"OUT = {x}[{k}, ...]", (x,), view=True)
    return Draft(f"OUT = {x}.split([1, {n - 1}])[1]", f"OUT = {x}[1:]", (x,), view=True)


@op(0.5)
def complex_parts(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.kind == "c")
    if x is None:
        return None
    name = b.rng.choice(["real", "imag"])
    return Draft(f"OUT = {x}.{name}", f"OUT = {x}.{name}", (x,), view=True)


@op(0.5)
def bits_seen(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype in (np.dtype("f4"), np.dtype("f8")) and a.flags.c_contiguous)
    if x is None or not b.exact(x) or x in b.leaves and b.leaves[x][3] or b.grad:
        return None
    name = "int32" if b.array(x).dtype == np.dtype("f4") else "int64"
    return Draft(f"OUT = ({x}.view(F.{name}) >> 20) & 63",
                 f"OUT = np.array(({x}.view({name!r}) >> 20) & 63)", (x,), exact_only=True)


@op(0.7)
def detached(b: Any) -> Draft | None:
    x = b.pick()
    if x is None or (b.grad and x in b.leaves and b.leaves[x][3]):
        return None
    if b.grad:      # what is written through a detached alias has no gradient, and FD sees one
        return Draft(f"OUT = {x}.detach().clone()", f"OUT = np.array({x})", (x,), exact=True)
    return Draft(f"OUT = {x}.detach()", f"OUT = {x}[...]", (x,), view=True)


# ---------------------------------------------------------------- copies that move elements

@op(0.7, smooth=True)
def cloned(b: Any) -> Draft | None:
    x = b.pick()
    return x and Draft(f"OUT = {x}.clone(memory_format=F.contiguous_format)",
                       f"OUT = np.array({x}, order='C')", (x,), exact=True)


@op(1, smooth=True)
def moved(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0)
    if x is None:
        return None
    n, axis = b.array(x).ndim, axis_of(b, x)
    text = b.rng.choice([
        (f"{x}.flip({axis})", f"np.array(np.flip({x}, {axis}), order='C')"),
        (f"{x}.roll(1, {axis})", f"np.array(np.roll({x}, 1, {axis}), order='C')"),
        (f"{x}.tril()", f"M.trig({x}, 0, True)") if n > 1 else (f"{x}.flip(0)",
                                                                f"np.array({x}[::-1])"),
        (f"F.nn.functional.pad({x}, (1, 2))",
         f"np.array(np.pad({x}, [(0, 0)] * {n - 1} + [(1, 2)]), order='C')"),
        (f"{x}.repeat_interleave(2, {axis})", f"np.array(np.repeat({x}, 2, {axis}), order='C')")])
    return Draft(f"OUT = {text[0]}", f"OUT = {text[1]}", (x,), exact=True)


@op(1.5, smooth=True)
def joined(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0)
    if x is None:
        return None
    a = b.array(x)
    y = b.pick(lambda c: c.shape == a.shape and c.dtype == a.dtype)
    name, axis = b.rng.choice([("cat", "concatenate"), ("stack", "stack")]), axis_of(b, x)
    return Draft(f"OUT = F.{name[0]}([{x}, {y}, {x}], {axis})",
                 f"OUT = np.array(np.{name[1]}([{x}, {y}, {x}], {axis}), order='C')", (x, y),
                 exact=True)


@op(1.5, smooth=True)
def gathered(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0 and a.size > 0)
    if x is None:
        return None
    n = b.array(x).shape[0]
    index = numbers_below(b, n, b.rng.randint(1, 4))
    r = b.rng.random()
    if r < 0.3:
        return Draft(f"OUT = {x}[{index}]", f"OUT = np.array({x}[{index}], order='C')", (x,),
                     exact=True)
    if r < 0.6:
        return Draft(f"OUT = {x}.index_select(0, F.tensor({index}))",
                     f"OUT = np.array({x}[{index}], order='C')", (x,), exact=True)
    i = b.pick(lambda a: a.dtype == np.dtype("i8") and a.size > 0)
    if i is None or b.array(i).ndim + b.array(x).ndim > 5:
        return None
    if not b.array(i).ndim:         # PyTorch takes it as a number, so the result is a view
        return Draft(f"OUT = {x}[{i} % {n}]", f"OUT = {x}[int({i}) % {n}, ...]", (x, i), view=True)
    return Draft(f"OUT = {x}[{i} % {n}]", f"OUT = np.array({x}[{i} % {n}], order='C')", (x, i),
                 exact=True)


@op(0.7, smooth=True)
def along(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0 and a.size > 0)
    if x is None:
        return None
    a = b.array(x)
    i = b.pick(lambda c: c.dtype == np.dtype("i8") and c.shape == a.shape)
    if i is None:
        i = b.leaf("int64", a.shape)
    axis = b.rng.randrange(a.ndim)
    n = a.shape[axis]
    return Draft(f"OUT = {x}.gather({axis}, {i} % {n})",
                 f"OUT = np.array(np.take_along_axis({x}, {i} % {n}, {axis}), order='C')", (x, i),
                 exact=True)


@op(0.7)
def masked(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    a = b.array(x)
    m = b.pick(lambda c: c.dtype.kind == "b" and c.shape == a.shape)
    if m is None or not a.ndim:
        return None
    b.fixed = True
    return Draft(f"OUT = {x}[{m}]", f"OUT = np.array({x}[{m}])", (x, m), exact=True)


@op(1, smooth=True)
def scattered(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.ndim > 0 and a.size > 0 and numbers(a))
    if x is None:
        return None
    a = b.array(x)
    y = b.pick(lambda c: c.dtype == a.dtype and c.shape == a.shape)
    i = b.pick(lambda c: c.dtype == np.dtype("i8") and c.shape == a.shape)
    if i is None:
        i = b.leaf("int64", a.shape)
    axis = b.rng.randrange(a.ndim)
    n = a.shape[axis]
    add = b.rng.random() < 0.6 or b.grad
    name = "scatter_add" if add else "scatter"
    return Draft(f"OUT = {x}.{name}({axis}, {i} % {n}, {y})",
                 f"OUT = M.scatter({x}, {axis}, {i} % {n}, {y}, {add})", (x, i, y), exact=not add)
