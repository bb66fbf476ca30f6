"""Whole Jacobians and Hessians: every row, or every column, as one batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from facula.func.batching import vmap
from facula.func.derivatives import _floating, _numbers, _tensors, jvp, vjp
from facula.func.tree import flatten, unflatten
from facula.ops.primitive.rules import along, expand, iota, permute, plus, reshape
from facula.tensor import Tensor, prim

__all__ = ["jacrev", "jacfwd", "hessian"]


def _basis(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The unit vectors of the space of all these tensors together: [N, *shape] for each."""
    sizes = [prod(t.shape) for t in tensors]
    total, start = sum(sizes), 0
    found = []
    for t, n in zip(tensors, sizes):
        row = expand(reshape(iota(total), (total, 1)), (total, n))
        column = expand(reshape(plus(iota(n), start), (1, n)), (total, n))
        unit = prim("cast", prim("eq", row, column), dtype=t.dtype)
        found.append(reshape(unit, (total, *t.shape)))
        start += n
    return found


def _split(t: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Stretches of the first dimension."""
    found, start = [], 0
    for n in sizes:
        found.append(along(t, 0, start, n) if len(sizes) > 1 else t)
        start += n
    return found


def _chosen(args: tuple[Any, ...], argnums: Any, what: str) -> tuple[tuple[int, ...], Any]:
    numbers = _numbers(argnums, len(args), what)
    picked = args[numbers[0]] if isinstance(argnums, int) else tuple([args[k] for k in numbers])
    for t in flatten(picked)[0]:
        _floating(t, what)
    return numbers, picked


def _partial(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
             numbers: tuple[int, ...]) -> Callable[..., Any]:
    """`func` of its chosen arguments alone."""
    def run(*given: Any) -> Any:
        every = list(args)
        for k, value in zip(numbers, given):
            every[k] = value
        return func(*every, **kwargs)
    return run


def jacrev(func: Callable[..., Any], argnums: Any = 0, *, has_aux: bool = False,
           chunk_size: int | None = None) -> Callable[..., Any]:
    """A function that returns the Jacobian of `func`, computed backwards, a row for each output.

    For an output of shape [*m] and an input of shape [*n] it has shape [*m, *n]; outputs and
    inputs may be nested, the inputs' nesting inside the outputs'.  `chunk_size` limits how many
    rows are computed at a time.  With `has_aux`, `func` returns a pair and `(jacobian, aux)` is
    returned.  Best with few outputs.
    """
    @functools.wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        what = "jacrev(f)(*args)"
        numbers, picked = _chosen(args, argnums, what)
        inputs, nested = flatten(picked)
        result = vjp(_partial(func, args, kwargs, numbers), *[args[k] for k in numbers],
                     has_aux=has_aux)
        output, back = result[0], result[1]
        outs, tree = _tensors(output, what)
        basis = _basis(outs)

        def pulled(*seeds: Any) -> Any:
            gradients = back(unflatten(list(seeds), tree))
            return tuple(flatten(gradients)[0])

        rows = vmap(pulled, chunk_size=chunk_size)(*basis)
        sizes = [prod(t.shape) for t in outs]
        each = [_split(t, sizes) for t in rows]
        jacobian = []
        for k, out in enumerate(outs):
            parts = [reshape(each[j][k], (*out.shape, *x.shape)) for j, x in enumerate(inputs)]
            jacobian.append(unflatten(parts, nested))
        found = unflatten(jacobian, tree)
        return (found, result[2]) if has_aux else found

    return run


def jacfwd(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *,
           randomness: str = "error") -> Callable[..., Any]:
    """A function that returns the Jacobian of `func`, computed forwards, a column for each input.

    Shapes and nesting are those of `jacrev`; `randomness` is that of `vmap`.  Best with few
    inputs.
    """
    @functools.wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        what = "jacfwd(f)(*args)"
        numbers, picked = _chosen(args, argnums, what)
        inputs, nested = flatten(picked)
        primals = tuple([args[k] for k in numbers])
        given, shape = flatten(primals)
        partial = _partial(func, args, kwargs, numbers)
        tree: Any = None
        extra: Any = None
        more: Any = None

        def pushed(*tangents: Any) -> Any:
            nonlocal tree, extra, more
            result = jvp(partial, primals, unflatten(list(tangents), shape), has_aux=has_aux)
            tree = _tensors(result[0], what)[1]
            leaves = flatten(result[1])[0]
            more, extra = flatten(result[2]) if has_aux else ([], None)
            carried = [t for t in more if isinstance(t, Tensor)]
            return tuple(leaves), tuple(carried)

        columns, carried = vmap(pushed, randomness=randomness)(*_basis(given))
        sizes = [prod(t.shape) for t in given]
        jacobian = []
        for t in columns:
            parts = [permute(p, (*range(1, p.ndim), 0)) for p in _split(t, sizes)]
            jacobian.append(unflatten([reshape(p, (*t.shape[1:], *x.shape))
                                       for p, x in zip(parts, inputs)], nested))
        found = unflatten(jacobian, tree)
        if not has_aux:
            return found
        values = iter([_first(t) for t in carried])
        aux = unflatten([next(values) if isinstance(t, Tensor) else t for t in more], extra)
        return found, aux

    return run


def _first(t: Tensor) -> Tensor:
    out: Tensor = reshape(along(t, 0, 0, 1), t.shape[1:])
    return out


def hessian(func: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """A function that returns the Hessian of `func`: the forward Jacobian of its reverse one."""
    return jacfwd(jacrev(func, argnums), argnums)
