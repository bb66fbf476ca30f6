"""The fuzzer's operations that write, and those that ask for values in the middle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.model import kind
from tests.fuzz.operations import (
    Draft,
    basic_key,
    into,
    isf,
    numbers,
    numbers_below,
    op,
    target,
)

__all__: list[str] = []


# ---------------------------------------------------------------- writes

@op(4, smooth=True)
def assigned(b: Any) -> Draft | None:
    t = target(b, lambda a: a.ndim > 0)
    if t is None:
        return None
    key = basic_key(b, b.array(t).shape)
    if "None" in key:
        return None
    shape = b.array(t)[eval(f"np.s_[{key}]", {"np": np})].shape
    y = into(b, shape, lambda c: "bifc".index(kind(c.dtype))
             <= "bifc".index(kind(b.array(t).dtype)))
    if y is None or b.rng.random() < 0.15:
        number = b.rng.choice([0, 1, 2])
        return Draft(f"{t}[{key}] = {number}", f"M.put_at({t}, np.s_[{key}], {number})", (t,),
                     target=t, exact=True, new=False)
    b.overlaps = b.overlaps or bool(np.shares_memory(b.array(t), b.array(y)))
    return Draft(f"{t}[{key}] = {y}", f"M.put_at({t}, np.s_[{key}], {y})", (t, y), target=t,
                 exact=True, new=False)


@op(3, smooth=True)
def augmented(b: Any) -> Draft | None:
    t = target(b, numbers)
    if t is None:
        return None
    a = b.array(t)
    sign, fn = b.rng.choice([("+=", "np.add"), ("-=", "np.subtract"), ("*=", "np.multiply")])
    y = into(b, a.shape, lambda c: numbers(c) and "bifc".index(kind(c.dtype))
             <= "bifc".index(kind(a.dtype)))
    if y is None:
        return None
    b.overlaps = b.overlaps or bool(np.shares_memory(a, b.array(y)))
    if a.ndim and b.rng.random() < 0.5:
        key = basic_key(b, a.shape)
        if "None" in key:
            return None
        part = a[eval(f"np.s_[{key}]", {"np": np})]
        y = into(b, part.shape, lambda c: c.dtype == a.dtype)
        if y is None:
            return None
        b.overlaps = b.overlaps or bool(np.shares_memory(a, b.array(y)))
        return Draft(f"{t}[{key}] {sign} {y}",
                     f"M.put_at({t}, np.s_[{key}], M.ew({fn}, {t}[{key}], {y}))", (t, y), target=t,
                     new=False)
    return Draft(f"{t} {sign} {y}", f"M.put({t}, M.ew({fn}, {t}, {y}))", (t, y), target=t,
                 new=False)


@op(1.5, smooth=True)
def in_place(b: Any) -> Draft | None:
    t = target(b, isf if not b.rng.random() < 0.3 else numbers)
    if t is None:
        return None
    y = into(b, b.array(t).shape, lambda c: "bifc".index(kind(c.dtype))
             <= "bifc".index(kind(b.array(t).dtype)))
    forms = [(f"{t}.zero_()", f"M.put({t}, 0)", True), (f"{t}.fill_(2)", f"M.put({t}, 2)", True),
             (f"{t}.neg_()", f"M.put({t}, -{t})", True)]
    if y is not None:
        b.overlaps = b.overlaps or bool(np.shares_memory(b.array(t), b.array(y)))
        forms.append((f"{t}.copy_({y})", f"M.put({t}, np.array({y}))", True))
    if isf(b.array(t)):
        forms += [(f"{t}.sin_()", f"M.put({t}, M.ew(np.sin, {t}))", False),
                  (f"{t}.tanh_()", f"M.put({t}, M.ew(np.tanh, {t}))", False),
                  (f"{t}.mul_(0.5)", f"M.put({t}, M.ew(np.multiply, {t}, 0.5))", False)]
    code, meaning, exact = b.rng.choice(forms)
    uses = (t, y) if y is not None and "copy_" in code else (t,)
    return Draft(code, meaning, uses, target=t, exact=exact, new=False)


@op(1)
def masked_write(b: Any) -> Draft | None:
    t = target(b, numbers)
    if t is None:
        return None
    m = into(b, b.array(t).shape, lambda c: c.dtype.kind == "b")
    if m is None:
        return None
    if b.array(m).shape == b.array(t).shape and b.array(t).ndim and b.rng.random() < 0.4:
        return Draft(f"{t}[{m}] = 1", f"M.put_at({t}, {m}, 1)", (t, m), target=t, exact=True,
                     new=False)
    return Draft(f"{t}.masked_fill_({m}, 2)", f"M.put({t}, np.where({m}, 2, {t}))", (t, m),
                 target=t, exact=True, new=False)


@op(1.2, smooth=True)
def indexed_write(b: Any) -> Draft | None:
    t = target(b, lambda a: numbers(a) and a.ndim > 0 and a.size > 0)
    if t is None:
        return None
    a = b.array(t)
    count = b.rng.randint(1, 4)
    index = numbers_below(b, a.shape[0], count)
    y = into(b, (count, *a.shape[1:]), lambda c: c.dtype == a.dtype)
    if y is None:
        return None
    if b.rng.random() < 0.5 and len(set(index)) == count:
        b.overlaps = b.overlaps or bool(np.shares_memory(a, b.array(y)))
        return Draft(f"{t}[{index}] = {y}", f"M.put_at({t}, {index}, {y})", (t, y), target=t,
                     exact=True, new=False)
    wide = f"{y}.expand({(count, *a.shape[1:])}).clone()"
    return Draft(f"{t}.index_add_(0, F.tensor({index}), {wide})",
                 f"M.put({t}, M.add_at({t}, {index}, {y}))", (t, y), target=t, new=False)


# ---------------------------------------------------------------- asking for values

@op(1.2, smooth=True)
def asked(b: Any) -> Draft | None:
    x = b.pick()
    if x is None:
        return None
    how = b.rng.choice(["{x}.tolist()", "str({x})", "{x}.detach().numpy().sum()"])
    if b.array(x).dtype.name == "bfloat16":
        how = "{x}.tolist()"
    return Draft(how.format(x=x), "None", (x,), new=False)


@op(0.6)
def held(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.name != "bfloat16")
    if x is None or not b.exact(x):
        return None
    return Draft(f"held.append({x}.detach().numpy())", f"held.append({x})", (x,), new=False)


@op(0.6)
def written_outside(b: Any) -> Draft | None:
    """NumPy writes to memory that it was shown."""
    if b.grad or not b.env["held"]:
        return None
    k = b.rng.randrange(len(b.env["held"]))
    a = b.env["held"][k]
    if any(s == 0 and n > 1 for s, n in zip(a.strides, a.shape)):
        return None
    text = b.rng.choice([f"held[{k}][...] = 1", f"held[{k}][...] = -held[{k}]"
                         if a.dtype.kind != "b" else f"held[{k}][...] = False"])
    return Draft(text, text, (), new=False)
