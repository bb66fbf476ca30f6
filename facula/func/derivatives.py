"""`grad`, `vjp`, `jvp`, `linearize`: derivatives of functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from facula.errors import GradientError
from facula.func.custom import links
from facula.func.passes import pull, push
from facula.func.trace import Trace, dependents, replay
from facula.func.tree import flatten, unflatten
from facula.graph.history import CHEAP
from facula.graph.record import _local
from facula.ops.define import remembered
from facula.tensor import Tensor, make, prim

__all__ = ["grad", "grad_and_value", "vjp", "jvp", "linearize"]

_KNOWN = CHEAP | {"scalar", "leaf"}


# ---------------------------------------------------------------- inputs and outputs

def _floating(t: Any, what: str) -> Tensor:
    if not isinstance(t, Tensor):
        raise ValueError(f"{what}: expected Tensors to differentiate with respect to, got "
                         f"{type(t).__name__}")
    if t.dtype.kind not in "fc":
        raise GradientError("only Tensors of floating point and complex dtype can require "
                            f"gradients, and {what} was given one of {t.dtype.name}")
    return t


def _tensors(value: Any, what: str) -> tuple[list[Tensor], Any]:
    """The tensors of a function's result."""
    leaves, tree = flatten(value)
    if not leaves:
        raise RuntimeError(f"{what}: Expected f to be a function that has non-empty output (got "
                           f"output = {value!r})")
    for t in leaves:
        if not isinstance(t, Tensor):
            raise RuntimeError(f"{what}: Expected f(*primals) to be a function that returns only "
                               f"tensors, got unsupported type {type(t)}")
    return leaves, tree


def _with_aux(result: Any, has_aux: bool, what: str) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(f"{what}: output of function f should be a tuple: (output, aux) if "
                           "has_aux is True")
    return result


def _zeros(like: Any) -> Tensor:
    spec = like._node.spec
    zero = 0j if spec.dtype.kind == "c" else 0.0
    return prim("full", attrs=(zero,), shape=spec.shape, dtype=spec.dtype)


class _Body:
    """One run of a function in a trace, its inputs placeholders."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
                 argnums: Sequence[int], what: str, has_aux: bool, forward: bool = False):
        self.trace = trace = Trace(_local.rec, forward)
        trace.grad = trace.grad if forward else True
        self.inputs: list[Tensor] = []          # the placeholders differentiated
        inside = list(args)
        self.trees = []
        for k in argnums:
            leaves, tree = flatten(args[k])
            placed = []
            for t in leaves:
                _floating(t, what)
                t._fresh()
                placed.append(trace.place(t, t._node.spec, True if not forward else t._rg))
            self.inputs += placed
            inside[k] = unflatten(placed, tree)
            self.trees.append((len(leaves), tree))
        self.places = [t._node.at[1] for t in self.inputs]
        with trace:
            try:
                result, aux = _with_aux(fn(*inside, **kwargs), has_aux, what)
                self.result = result
                self.aux, self.aux_tree = flatten(aux)
                del aux, inside
                trace.returned()
            except BaseException:
                trace.abandon()
                raise

    def finish(self, *groups: Sequence[Tensor]) -> list[list[Tensor]]:
        """The tensors of each group outside, and `aux`."""
        extra = [t for t in self.aux if isinstance(t, Tensor)]
        flat = [t for g in groups for t in g]
        values = iter(self.trace.finish([*flat, *extra]))
        out = [[next(values) for _ in g] for g in groups]
        self.aux = [next(values) if isinstance(t, Tensor) else t for t in self.aux]
        return out

    def nested(self, leaves: Sequence[Any]) -> list[Any]:
        """One value a differentiated argument, nested as the argument is."""
        out, rest = [], list(leaves)
        for n, tree in self.trees:
            out.append(unflatten(rest[:n], tree))
            rest = rest[n:]
        return out

    @property
    def more(self) -> Any:
        return unflatten(self.aux, self.aux_tree)


def _numbers(argnums: Any, count: int, what: str) -> tuple[int, ...]:
    if not isinstance(argnums, (int, tuple)):
        raise RuntimeError(f"{what}: argnums must be int or Tuple[int, ...], got: "
                           f"{type(argnums)}")
    chosen = (argnums,) if isinstance(argnums, int) else argnums
    if not chosen:
        raise RuntimeError(f"{what}: argnums must be non-empty, got argnums=()")
    found = []
    for k in chosen:
        if not isinstance(k, int):
            raise RuntimeError(f"{what}: elements of argnums must be int, got {type(k)}")
        if not -count <= k < count:
            raise RuntimeError(f"{what}: Got argnum={k}, but only {count} positional inputs")
        found.append(k % count)
    if len(set(found)) != len(found):
        raise RuntimeError(f"{what}: argnums elements must be unique, got {argnums}")
    return tuple(found)


# ---------------------------------------------------------------- grad

def grad_and_value(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False
                   ) -> Callable[..., Any]:
    """A function that returns the gradient of `func` and what `func` returns.

    `func` returns a tensor of no dimensions, or with `has_aux` a pair of it and whatever else is
    wanted; then `(gradient, (output, aux))` is returned.  `argnums` says with respect to which
    positional arguments; these are nested as the arguments are, and a tuple for a tuple of
    argnums.  Raises RuntimeError where `func` returns anything else.
    """
    @functools.wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        what = "grad_and_value(f)(*args)"
        chosen = _numbers(argnums, len(args), what)
        body = _Body(func, args, kwargs, chosen, what, has_aux)
        out = body.result
        if not isinstance(out, Tensor):
            body.trace.close()
            raise RuntimeError(f"{what}: Expected f(*args) to return a Tensor, got output of "
                               f"type {type(out)}")
        if out.ndim != 0:
            body.trace.close()
            raise RuntimeError(f"{what}: Expected f(*args) to return a scalar tensor, got tensor "
                               f"with {out.ndim} dims. Maybe you forgot to reduce the output?")
        trace = body.trace
        with trace:
            found = _gradients(trace, [out], None, body)
        gradients, (value,) = body.finish(found, [out])
        each = body.nested(gradients)
        grads = each[0] if isinstance(argnums, int) else tuple(each)
        return (grads, (value, body.more)) if has_aux else (grads, value)

    return run


def _gradients(trace: Trace, outs: Sequence[Tensor], seeds: Sequence[Tensor] | None,
               body: _Body) -> list[Tensor]:
    """The gradients of the body's inputs, recorded in the trace."""
    if seeds is None:
        seeds = [prim("full", attrs=(1.0 if t.dtype.kind == "f" else 1,),
                      shape=t._node.spec.shape, dtype=t.dtype) for t in outs]
    chosen = [(trace.index(t), s) for t, s in zip(outs, seeds) if t._rg and t.dtype.kind in "fc"]
    found = pull(trace, [i for i, _ in chosen], [s for _, s in chosen], body.places)
    return [_zeros(t) if g is None else g for t, g in zip(body.inputs, found)]


def grad(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False
         ) -> Callable[..., Any]:
    """A function that returns the gradient of `func`; see `grad_and_value`.

    With `has_aux` it returns `(gradient, aux)`.

        >>> facula.func.grad(lambda x: (x ** 2).sum())(facula.tensor([1.0, 2.0]))
        tensor([2., 4.])
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        gradients, value = both(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return run


# ---------------------------------------------------------------- linear maps

class _Linear:
    """The part of a trace that is linear in some placeholders, to be run again and again.

    What it reads of the rest was carried over once, and is held here.
    """

    def __init__(self, trace: Trace, outs: Sequence[int], variables: Sequence[int]):
        self.outs = tuple(outs)
        self.state = trace.graph.state
        self.trace = trace
        self.variables = tuple(variables)
        steps = self.steps = trace.graph.path()
        depends = dependents(steps, variables)
        reads: set[int] = set()
        order: set[int] = set()
        extra = links(trace, values=True) if trace.graph.functions else {}
        todo = list(outs)
        while todo:
            i = todo.pop()
            if i in order or i in reads or i in self.variables:
                continue
            step = steps[i]
            if i not in depends and (step.op not in _KNOWN or not step.inputs):
                # A constant is made anew; anything else is kept.
                if step.op in ("full", "iota"):
                    order.add(i)
                else:
                    reads.add(i)
                continue
            order.add(i)
            todo.extend(step.inputs)
            todo.extend(extra.get(i, ()))
        self.order = sorted(order)
        self.reads = sorted(reads)
        self.kept: list[Tensor] = []

    def __call__(self, values: Sequence[Tensor]) -> list[Tensor]:
        rec = _local.rec
        given = [*values, *self.kept]
        if self.trace.graph.functions:
            return self._body(*given)
        key = ("linear", self.state, self.outs, self.variables, rec.forward)
        out = list(remembered(key, given, self._body))
        rec.graph.last([t._node for t in self.kept])
        return out

    def _body(self, *tensors: Tensor) -> list[Tensor]:
        return replay(self.trace, self, tensors)             # type: ignore[arg-type]

    @property
    def leaves(self) -> list[tuple[int, int, bool]]:
        return [(i, -1, False) for i in (*self.variables, *self.reads)]


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """`func(*primals)` and a function that multiplies vectors by its Jacobian from the left.

    Returns `(output, vjp_fn)`, or `(output, vjp_fn, aux)` with `has_aux`.  `vjp_fn` takes
    tensors nested as the output and returns a tuple of gradients, one for each of `primals`, as
    often as it is called; what it needs was computed once.  RuntimeError where `func` returns
    anything but tensors.
    """
    what = "vjp(f, *primals)"
    body = _Body(func, primals, {}, range(len(primals)), what, has_aux)
    trace = body.trace
    try:
        outs, tree = _tensors(body.result, what)
    except RuntimeError:
        trace.close()
        raise
    specs = [t._node.spec for t in outs]
    with trace:
        # Gradients flow through whatever vectors there will be, if they have any.
        seeds = [trace.variable(t._node.spec, t.dtype.kind in "fc") for t in outs]
        places = [s._node.at[1] for s in seeds]
        found = _gradients(trace, outs, seeds, body)
        trace.lasting = True
        linear = _Linear(trace, [trace.index(g) for g in found], places)
        reads = [_value(trace, i, linear.steps) for i in linear.reads]
    values, linear.kept = body.finish(outs, reads)

    def vjp_fn(cotangents: Any, retain_graph: bool = True,
               create_graph: bool | None = None) -> tuple[Any, ...]:
        leaves, given = flatten(cotangents)
        if given != tree:
            raise RuntimeError("vjp_fn: Expected pytree structure of cotangents to be the same as "
                               "pytree structure of outputs to the function")
        for t, s in zip(leaves, specs):
            if tuple(t.shape) != s.shape:
                raise RuntimeError(f"vjp_fn: Expected a cotangent of shape {list(s.shape)}, the "
                                   f"output's, and got one of {list(t.shape)}")
        return tuple(body.nested(linear([_cast(t, s) for t, s in zip(leaves, specs)])))

    output = unflatten(values, tree)
    return (output, vjp_fn, body.more) if has_aux else (output, vjp_fn)


def _value(trace: Trace, index: int, steps: Any) -> Tensor:
    """A value of the trace as a tensor to be carried over."""

    return make(trace.graph.handle(index, steps[index].spec), bool(steps[index].mask))


def _cast(t: Tensor, spec: Any) -> Tensor:
    return t if t.dtype is spec.dtype else prim("cast", t, dtype=spec.dtype)


# ---------------------------------------------------------------- jvp

def _paired(primals: Any, tangents: Any, what: str) -> list[Tensor]:
    """The tangents' leaves, checked against the primals'."""
    for name, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, tuple):
            raise RuntimeError(f"{what}: Expected {name} to be a tuple. E.g. it should be valid "
                               f"to call f(*primals).")
        if not value:
            raise RuntimeError(f"{what}: Expected {name} to be non-empty")
    first, tree = flatten(primals)
    second, other = flatten(tangents)
    if tree != other:
        raise RuntimeError(f"{what}: Expected primals and tangents to have the same python "
                           f"structure. For example, if primals is a tuple of 3 tensors, "
                           f"tangents also must be.")
    for p, t in zip(first, second):
        if not isinstance(p, Tensor) or not isinstance(t, Tensor):
            raise RuntimeError(f"{what}: Expected primals and tangents to be nested tuples of "
                               "tensors, got "
                               f"{type(t if isinstance(p, Tensor) else p).__name__}")
        if p.shape != t.shape:
            raise RuntimeError(f"{what}: Expected tangent to have the same shape as its primal, "
                               f"{list(p.shape)}, but got {list(t.shape)}")
        if p.dtype is not t.dtype:
            raise RuntimeError(f"{what}: Expected tangent to have the same dtype as its primal, "
                               f"{p.dtype.name}, but got {t.dtype.name}")
        t._fresh()
    return second


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False,
        has_aux: bool = False) -> Any:
    """`func(*primals)` and its Jacobian times `tangents`, by forward differentiation.

    `primals` and `tangents` are tuples nested alike.  Returns `(output, jvp_out)`, or
    `(output, jvp_out, aux)` with `has_aux`.  An output that does not depend on the inputs has
    zeros, or is a RuntimeError with `strict`.  NotImplementedError for an operation without a
    forward derivative.
    """
    what = "jvp(f, primals, tangents)"
    given = _paired(primals, tangents, what)
    body = _Body(func, primals, {}, range(len(primals)), what, has_aux, forward=True)
    trace = body.trace
    try:
        outs, tree = _tensors(body.result, what)
        with trace:
            moving = [trace.place(t, t._node.spec, t.requires_grad) for t in given]
            found = push(trace, [trace.index(t) for t in outs], body.places, moving)
            if strict and any(t is None for t in found):
                raise RuntimeError(f"{what}: The output of f is independent of the input. This "
                                   "is not allowed when strict=True.")
            slopes = [_zeros(o) if t is None else t for o, t in zip(outs, found)]
    except BaseException:
        trace.close()
        raise
    values, slopes = body.finish(outs, slopes)
    output, slope = unflatten(values, tree), unflatten(slopes, tree)
    return (output, slope, body.more) if has_aux else (output, slope)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`func(*primals)` and its Jacobian there as a function of tangents.

    `jvp_fn(*tangents)` costs the linear part only: the rest was computed once.
    """
    what = "linearize(f, *primals)"
    if not primals:
        raise RuntimeError(f"{what}: Expected at least one argument for the primals.")
    body = _Body(func, primals, {}, range(len(primals)), what, False, forward=True)
    trace = body.trace
    outs, tree = _tensors(body.result, what)
    with trace:
        moving = [trace.variable(t._node.spec, True) for t in body.inputs]
        places = [t._node.at[1] for t in moving]
        found = push(trace, [trace.index(t) for t in outs], body.places, moving)
        slopes = [_zeros(o) if t is None else t for o, t in zip(outs, found)]
        trace.lasting = True
        linear = _Linear(trace, [trace.index(t) for t in slopes], places)
        reads = [_value(trace, i, linear.steps) for i in linear.reads]
    values, linear.kept = body.finish(outs, reads)
    _, shape = flatten(primals)
    specs = [t._node.spec for t in body.inputs]

    def jvp_fn(*tangents: Any) -> Any:
        leaves, given = flatten(tangents)
        if given != shape:
            raise RuntimeError("jvp_fn: the tangents are not nested as the primals were")
        for t, s in zip(leaves, specs):
            if tuple(t.shape) != s.shape or t.dtype is not s.dtype:
                raise RuntimeError(f"jvp_fn: Expected a tangent of shape {list(s.shape)} and "
                                   f"{s.dtype.name}, the primal's, and got "
                                   f"{list(t.shape)} and {t.dtype.name}")
        return unflatten(linear(leaves), tree)

    return unflatten(values, tree), jvp_fn
