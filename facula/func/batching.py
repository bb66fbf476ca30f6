"""`vmap`: a function of one example as a function of a batch of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from facula.errors import VmapError, with_line
from facula.func.trace import Plan, Trace, detached, outside
from facula.func.tree import broadcast_prefix, flatten, unflatten
from facula.graph.record import Node, Recorder, _local
from facula.graph.spec import spec
from facula.ops.primitive.batching import Batch, one_by_one
from facula.ops.primitive.rules import cat, expand, permute, reshape
from facula.ops.table import PRIMS
from facula.tensor import DETACHED, Tensor, prim

__all__ = ["vmap", "Mapped", "VmapInfo"]

RANDOMNESS = ("error", "different", "same")


class VmapInfo(NamedTuple):
    """What `Function.vmap` is told: how many examples there are, and of random numbers."""

    batch_size: int
    randomness: str


class Mapped(Trace):
    """The trace of one example."""

    def __init__(self, outer: Recorder, size: int, randomness: str):
        super().__init__(outer)
        self.size = size
        self.randomness = randomness

    def copies(self) -> int:
        if self.randomness == "error":
            raise VmapError(with_line(
                "vmap: called random operation while in randomness error mode. Please either use "
                "the 'same' or 'different' randomness flags on vmap or perform the randomness "
                "operation out of vmap"))
        return self.size if self.randomness == "different" else 1

    def batched(self) -> set[int]:
        """The steps whose values differ from example to example."""
        steps = self.graph.path()
        found = {index for index, node in self.graph.leaves if node in self.args}
        different = self.randomness == "different"
        for i, step in enumerate(steps):
            if different and step.op == "philox" or not found.isdisjoint(step.inputs):
                found.add(i)
        return found

    def settle(self, index: int) -> None:
        if index in self.batched():
            raise VmapError(with_line(
                "vmap: It looks like you're calling .item() on a Tensor or attempting to use a "
                "Tensor in some data-dependent control flow (if, while, bool(), int(), print(), "
                "numpy(), a boolean mask as an index), and its value differs from example to "
                "example. Write the choice with facula.where, or take it out of the mapped "
                "function"))
        self.known[index] = self.lower([index])[0]

    def written_to(self, before: Node, value: Node) -> None:
        if self.outside(before) and value.at[1] in self.batched():
            raise VmapError(with_line(
                "vmap: inplace arithmetic(self, *extra_args) is not possible because there "
                "exists a Tensor `other` in extra_args that has more elements than `self`: the "
                "tensor overwritten came from outside of the mapped function, where there is "
                "one, and each example would write another value. Write the operation out of "
                "place, or make the tensor an input of the mapped function"))

        super().written_to(before, value)

    def what(self) -> Any:
        """What the steps say nothing of, but the mapped ones depend on."""
        return ("vmap", self.size, self.randomness == "different",
                tuple([node in self.args for _, node in self.graph.leaves]))

    def custom(self, cls: Any, args: tuple[Any, ...]) -> Any:
        """Call `cls.vmap` outside, and go on with placeholders for its results."""
        where = [k for k, a in enumerate(args) if isinstance(a, Tensor)]
        places = tuple([self.index(args[k]) for k in where])
        batched = self.batched()
        if batched.isdisjoint(places):
            return NotImplemented
        given = list(args)
        dims: list[int | None] = [None] * len(args)
        for k, place, value in zip(where, places, self.carried(self.what(), places, _replay)):
            given[k] = value
            dims[k] = 0 if place in batched else None
        with outside(self.outer):
            result, out_dims = cls.vmap(VmapInfo(self.size, self.randomness), tuple(dims), *given)
            leaves, tree = flatten(result)
            found = broadcast_prefix(out_dims, tree)
            if found is None:
                raise VmapError(f"{cls.__name__}.vmap: out_dims {out_dims!r} are not nested as the "
                                "outputs are")
            leaves = [t if dim is None or not isinstance(t, Tensor)
                      else _moved(t, _wrapped(dim, t, 0, "out_dim"), 0)
                      for t, dim in zip(leaves, found)]
        inside = []
        for t, dim in zip(leaves, found):
            if dim is not None and isinstance(t, Tensor):
                if t.shape[:1] != (self.size,):
                    raise VmapError(f"{cls.__name__}.vmap: a result of shape {list(t.shape)}, "
                                    f"batch in front, for {self.size} examples")
                own = t._node.spec
                t = self.place(t, spec(own.shape[1:], own.dtype), t._rg)
                self.inputs.pop()               # no tensor of the user's is behind it
            inside.append(t)
        return unflatten(inside, tree)

    def leaving(self, outs: Sequence[int]) -> list[Node]:
        batched = self.batched()
        return [n for n in self.escaped(outs) if n.at[1] not in batched]

    def map(self, results: Sequence[Tensor]) -> tuple[list[Tensor], list[bool]]:
        """The results of all examples, batch in front; and which of them have one."""
        outs = [self.index(t) for t in results]
        written = self.overwritten()
        batched = self.batched()
        kept = self.leaving(outs)
        every = (*outs, *[i for _, i in written], *[n.at[1] for n in kept])
        values = self.carried(self.what(), every, _replay)
        n = len(outs)
        if kept:
            self.hand_over(kept, values[n + len(written):])
        given = {id(t._node) for t in self.args.values()}
        self.close()
        with outside(self.outer):
            for (target, i), value in zip(written, values[n:]):
                if i not in batched:
                    value = _repeated(value, self.size)
                dim = self.dims[id(target)]
                target._write(_moved(value, 0, dim))
            values = [prim("alias", v) if v._node.value is not None or id(v._node) in given
                      else v for v in values[:n]]
        return values, [i in batched for i in outs]

    dims: dict[int, int]


def _replay(trace: Any, plan: Plan, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Record the steps of a plan for all examples at once."""
    rec = _local.rec
    args = trace.args
    leaves = trace.graph.leaves
    steps = plan.steps
    values: dict[int, Tensor] = {}
    batched: set[int] = set()
    for (i, position, _), t in zip(plan.leaves, tensors):
        values[i] = t
        if position >= 0 and leaves[position][1] in args:
            batched.add(i)
    different = trace.randomness == "different"
    functions = trace.graph.functions
    for i in plan.order:
        step = steps[i]
        operands = [detached(values[j], step, k) for k, j in enumerate(step.inputs)]
        which = tuple([j in batched for j in step.inputs])
        drawn = different and step.op == "philox"
        if drawn or any(which):
            batched.add(i)
        if step.op == "alias" and step.attrs == DETACHED and not rec.forward:
            values[i] = operands[0]
        elif functions and i in functions:
            from facula.func.custom import carry
            values[i] = carry(trace, i, values, batched)
        elif i in batched:
            rule = PRIMS[step.op].batch or one_by_one
            values[i] = rule(Batch(step.op, tuple(operands), which, step.attrs, step.spec,
                                   trace.size))
        else:
            values[i] = prim(step.op, *operands, attrs=step.attrs, shape=step.spec.shape,
                             dtype=step.spec.dtype, view=step.view)
    return [values[i] for i in plan.outs]


# ---------------------------------------------------------------- dimensions

def _moved(t: Tensor, source: int, to: int) -> Tensor:
    order = [a for a in range(t.ndim) if a != source]
    order.insert(to, source)
    out: Tensor = permute(t, order)
    return out


def _repeated(t: Tensor, size: int) -> Tensor:
    shape = t._node.spec.shape
    out: Tensor = expand(reshape(t, (1, *shape)), (size, *shape))
    return out


def _wrapped(dim: Any, t: Tensor, extra: int, what: str) -> int:
    """A dimension counted from the front."""
    ndim = t.ndim + extra
    if not -ndim <= dim < ndim:
        raise ValueError(f"vmap: got {what} {dim} for a Tensor of dimensionality {ndim}: it must "
                         f"be in [-{ndim}, {ndim})")
    return dim + ndim if dim < 0 else dim


def _in_dims(name: str, in_dims: Any, args: tuple[Any, ...]) -> tuple[list[Any], list[Any], Any]:
    """The leaves of the arguments, the mapped dimension of each, and how they are nested."""
    if not isinstance(in_dims, (int, tuple)):
        kind = type(in_dims).__name__
        raise ValueError(f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): expected `in_dims` to "
                         f"be int or a (potentially nested) tuple matching the structure of "
                         f"inputs, got: {kind}.")
    if not args:
        raise ValueError(f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add "
                         "inputs, or you are trying to vmap over a function with no inputs. The "
                         "latter is unsupported.")
    leaves, tree = flatten(args)
    dims = broadcast_prefix(in_dims, tree)
    if dims is None:
        raise ValueError(f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): in_dims is not "
                         "compatible with the structure of inputs. in_dims has structure "
                         f"{in_dims!r} but inputs have {len(leaves)} leaves nested otherwise.")
    found: list[Any] = []
    for value, dim in zip(leaves, dims):
        if dim is not None and type(dim) is not int:
            raise ValueError(f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={dim} "
                             "for an input but in_dim must be either an integer dimension or "
                             "None.")
        if dim is None:
            found.append(None)
            continue
        if not isinstance(value, Tensor):
            if in_dims == 0 and type(in_dims) is int:
                raise ValueError(
                    f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={dim} for an "
                    f"input but the input is of type {type(value)}. We cannot vmap over "
                    "non-Tensor arguments, please use None as the respective in_dim")
            raise ValueError(
                f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={dim} for an input "
                f"but the input is of type {type(value)}. We cannot vmap over non-Tensor "
                "arguments, please use None as the respective in_dim")
        if not -value.ndim <= dim < value.ndim:
            raise ValueError(
                f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={dim} for some "
                f"input, but that input is a Tensor of dimensionality {value.ndim} so expected "
                f"in_dim to satisfy -{value.ndim} <= in_dim < {value.ndim}.")
        found.append(dim + value.ndim if dim < 0 else dim)
    if all(d is None for d in found):
        raise ValueError(f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): got no mapped inputs: "
                         "at least one of in_dims has to be an integer.")
    return leaves, found, tree


def _size(name: str, leaves: Sequence[Any], dims: Sequence[Any]) -> int:
    sizes = [t.shape[d] for t, d in zip(leaves, dims) if d is not None]
    if any(n != sizes[0] for n in sizes):
        raise ValueError(f"vmap({name}): Expected all tensors to have the same size in the mapped "
                         f"dimension, got sizes {sizes} for the mapped dimension")
    return sizes[0]                                           # type: ignore[no-any-return]


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", None) or repr(fn)


# ---------------------------------------------------------------- the transform

def vmap(func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0,
         randomness: str = "error", *, chunk_size: int | None = None) -> Callable[..., Any]:
    """`func`, a function of single examples, as a function of batches.

    in_dims     which dimension of each input is the batch: an int for all, or nested as the
                inputs are (a prefix will do), None for inputs that every example shares
    out_dims    where the results have theirs, in the same way
    randomness  whether random numbers in `func` are an error, the 'same' for all examples or
                'different' for each
    chunk_size  at most so many examples at a time

    The body runs once, on tensors without the batch dimension, and cannot look at values that
    differ between examples: VmapError.  In-place operations are fine on what it makes or is
    given, and a VmapError on tensors from outside where the values written differ.  ValueError
    for dimensions that do not fit.
    """
    if randomness not in RANDOMNESS:
        raise RuntimeError("Only allowed values for randomness are 'error', 'different', or "
                           f"'same'. Got {randomness}")
    if chunk_size is not None and not chunk_size > 0:
        raise ValueError("vmap: chunk_size should be None or greater than 0. (got "
                         f"{chunk_size})")

    @functools.wraps(func, updated=())
    def mapped(*args: Any, **kwargs: Any) -> Any:
        name = _name(func)
        leaves, dims, tree = _in_dims(name, in_dims, args)
        size = _size(name, leaves, dims)
        if chunk_size is None or chunk_size >= size:
            return _run(func, name, leaves, dims, tree, kwargs, out_dims, size, randomness)
        return _in_chunks(func, name, leaves, dims, tree, kwargs, out_dims, size, randomness,
                          chunk_size)

    return mapped


def _run(func: Any, name: str, leaves: Sequence[Any], dims: Sequence[Any], tree: Any,
         kwargs: dict[str, Any], out_dims: Any, size: int, randomness: str) -> Any:
    trace = Mapped(_local.rec, size, randomness)
    trace.dims = {}
    inside = []
    for value, dim in zip(leaves, dims):
        if dim is None:
            inside.append(value)
            continue
        value._fresh()
        front = _moved(value, dim, 0)
        own = front._node.spec
        t = trace.place(front, spec(own.shape[1:], own.dtype), front._rg)
        trace.inputs[-1] = (*trace.inputs[-1][:2], value)
        trace.dims[id(value)] = dim
        inside.append(t)
    with trace:
        try:
            result = func(*unflatten(inside, tree), **kwargs)
        except BaseException:
            trace.abandon()
            raise
    found, shape = flatten(result)
    for t in found:
        if not isinstance(t, Tensor):
            raise ValueError(f"vmap({name}, ...): `{name}` must only return Tensors, got type "
                             f"{type(t)} as a return.")
    wanted = broadcast_prefix(out_dims, shape)
    if wanted is None:
        raise ValueError(f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not "
                         "compatible with the structure of `outputs`.")
    for dim in wanted:
        if dim is not None and type(dim) is not int:
            raise ValueError(f"vmap({name}, ..., out_dims={out_dims}): `out_dims` must be an int, "
                             "None or a python collection of ints representing where in the "
                             "outputs the vmapped dimension should appear.")
    values, batched = trace.map(found)
    out = []
    for t, has, dim in zip(values, batched, wanted):
        if dim is None:
            if has:
                raise ValueError(
                    f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim "
                    "is None")
            out.append(t)
            continue
        dim = _wrapped(dim, t, 0 if has else 1, "out_dim")
        out.append(_moved(t if has else _repeated(t, size), 0, dim))
    return unflatten(out, shape)


def _in_chunks(func: Any, name: str, leaves: Sequence[Any], dims: Sequence[Any], tree: Any,
               kwargs: dict[str, Any], out_dims: Any, size: int, randomness: str,
               chunk: int) -> Any:
    """The examples a few at a time, their results joined."""
    columns: list[list[Any]] = []
    shape: Any = None
    for start in range(0, size, chunk):
        count = min(chunk, size - start)
        part = [value if dim is None else value.narrow(dim, start, count)
                for value, dim in zip(leaves, dims)]
        result = _run(func, name, part, dims, tree, kwargs, out_dims, count, randomness)
        found, shape = flatten(result)
        columns.append(found)
    wanted = broadcast_prefix(out_dims, shape) or []
    out = []
    for k, dim in enumerate(wanted):
        parts = [c[k] for c in columns]
        if dim is None:
            out.append(parts[0])
            continue
        out.append(cat(parts, dim + parts[0].ndim if dim < 0 else dim))
    return unflatten(out, shape)
