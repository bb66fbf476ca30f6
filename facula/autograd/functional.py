"""Products with Jacobians and Hessians of functions of tensors: PyTorch's older interface.

`facula.func` is the general one.  Here functions take one tensor or several, and return one or
a tuple; what is returned is cut from its history unless `create_graph`.  With `strict` an output
or derivative that does not depend on an input is a RuntimeError, otherwise zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facula.autograd.backward import grad as _grad
from facula.tensor import Tensor

__all__ = ["vjp", "jvp", "jacobian", "hessian", "vhp", "hvp"]

Tensors = tuple[Tensor, ...]


# ---------------------------------------------------------------- what goes in and comes out

def _tuple(value: Any, what: str, name: str) -> tuple[bool, Tensors]:
    """Whether `value` is a tuple, and it as one.  Raises a TypeError for anything but tensors."""
    many = isinstance(value, tuple)
    for i, t in enumerate(value if many else (value,)):
        if not isinstance(t, Tensor):
            where = f"value at index {i}" if many else f"given {what}"
            raise TypeError(f"The {what} given to {name} must be either a Tensor or a tuple of "
                            f"Tensors but the {where} has type {type(t)}.")
    return many, value if many else (value,)


def _vector(v: Any, like: Tensors, many: bool, name: str) -> Tensors:
    """The vector of a product, which has the shapes of `like`; ones for a single element."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            where = "user-provided function returns" if name == "vjp" else \
                "input to the user-provided function is"
            raise RuntimeError(f"The vector v can only be None if the {where} a single Tensor "
                               "with a single element.")
        from facula.ops.creation import ones_like
        return (ones_like(like[0]),)
    vectors = _tuple(v, "v", name)[1]
    if len(vectors) != len(like):
        raise RuntimeError(f"v is a tuple of invalid length: should be {len(like)} but got "
                           f"{len(vectors)}." if many else "The given v should contain a single "
                           "Tensor.")
    for i, (t, other) in enumerate(zip(vectors, like)):
        if t.shape != other.shape:
            where = f"Entry {i} in " if many else ""
            raise RuntimeError(f"{where}v has invalid size: should be {other.shape} but got "
                               f"{t.shape}.")
    return vectors


def _given_back(values: Any, many: bool, create_graph: bool) -> Any:
    """A tuple of results, or the only one, as they are returned."""
    out = tuple([t if create_graph else t.detach() for t in values])
    return out if many else out[0]


class _Function:
    """A user's function as one of tensors to a tuple; what it returned is looked at as it runs."""

    def __init__(self, func: Callable[..., Any], name: str, create_graph: bool, strict: bool,
                 single: bool = False):
        self.func = func
        self.name = name
        self.create_graph = create_graph
        self.strict = strict
        self.single = single
        self.many = False

    def __call__(self, *inputs: Tensor) -> Tensors:
        result = self.func(*inputs)
        self.many, outs = _tuple(result, "outputs of the user-provided function", self.name)
        if self.single:
            if self.many:
                raise RuntimeError(f"The function given to {self.name} should return a single "
                                   "Tensor")
            if outs[0].numel() != 1:
                raise RuntimeError(f"The Tensor returned by the function given to {self.name} "
                                   "should contain a single element")
            outs = (outs[0].reshape(()),)                    # type: ignore[attr-defined]
        if self.strict:
            self._look(outs, inputs)
        return outs

    def _look(self, outs: Tensors, inputs: Tensors) -> None:
        for i, out in enumerate(outs):
            if not out.requires_grad:
                raise RuntimeError(
                    f"Output {i} of the user-provided function does not require gradients. The "
                    "outputs must be computed in a differentiable manner from the input when "
                    "running in strict mode.")
            total = out.sum()                                # type: ignore[attr-defined]
            found = _grad(total, list(inputs), create_graph=True, allow_unused=True)
            for k, g in enumerate(found):
                if g is None:
                    raise RuntimeError(
                        f"Output {i} of the user-provided function is independent of input {k}. "
                        "This is not allowed in strict mode.")
                if (self.create_graph or self.single) and not g.requires_grad:
                    raise RuntimeError(
                        f"The jacobian of the user-provided function is independent of input {k}. "
                        "This is not allowed in strict mode when create_graph=True.")


# ---------------------------------------------------------------- products

def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """`func(*inputs)` and `v` times its Jacobian, one tensor an input.

    `v` has the outputs' shapes, and may be left out for a single element.
    """
    from facula.func.derivatives import vjp as pull
    many, given = _tuple(inputs, "inputs", "vjp")
    run = _Function(func, "vjp", create_graph, strict)
    outs, back = pull(run, *given)
    weights = _vector(v, outs, run.many, "vjp")
    found = back(weights)
    return (_given_back(outs, run.many, create_graph), _given_back(found, many, create_graph))


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """`func(*inputs)` and its Jacobian times `v`, one tensor an output; by forward derivatives.

    `v` has the inputs' shapes, and may be left out for a single element.
    """
    from facula.func.derivatives import jvp as push
    many, given = _tuple(inputs, "inputs", "jvp")
    directions = _vector(v, given, many, "jvp")
    run = _Function(func, "jvp", create_graph, strict)
    if strict:
        _dry(run, given)
    plain = _Function(func, "jvp", create_graph, False)
    outs, slopes = push(plain, given, directions)
    return (_given_back(outs, plain.many, create_graph),
            _given_back(slopes, plain.many, create_graph))


def _dry(run: _Function, given: Tensors) -> None:
    """Run a function for what its outputs depend on alone."""
    from facula.func.derivatives import vjp as pull
    pull(run, *given)


def _gradient(run: _Function, many: int) -> Callable[..., Any]:
    """The function of the inputs that returns their gradients, and the value beside them."""
    from facula.func.derivatives import grad_and_value
    def value(*inputs: Tensor) -> Tensor:
        return run(*inputs)[0]
    return grad_and_value(value, argnums=tuple(range(many)))


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """`func(*inputs)`, a single element, and `v` times its Hessian."""
    from facula.func.derivatives import vjp as pull
    many, given = _tuple(inputs, "inputs", "vhp")
    weights = _vector(v, given, many, "vhp")
    run = _Function(func, "vhp", create_graph, strict, single=True)
    both = _gradient(run, len(given))
    _, back, value = pull(lambda *x: both(*x), *given, has_aux=True)
    found = back(weights)
    return _given_back([value], False, create_graph), _given_back(found, many, create_graph)


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """`func(*inputs)`, a single element, and its Hessian times `v`: a gradient's tangent."""
    from facula.func.derivatives import jvp as push
    many, given = _tuple(inputs, "inputs", "hvp")
    directions = _vector(v, given, many, "hvp")
    run = _Function(func, "hvp", create_graph, strict, single=True)
    both = _gradient(run, len(given))
    _, found, value = push(lambda *x: both(*x), given, directions, has_aux=True)
    return _given_back([value], False, create_graph), _given_back(found, many, create_graph)


# ---------------------------------------------------------------- whole matrices

def _strategy(name: str) -> None:
    if name not in ("forward-mode", "reverse-mode"):
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode". '
                             'Hint: If your function has more outputs than inputs, '
                             '"forward-mode" tends to be more performant. Otherwise, prefer to '
                             'use "reverse-mode".')


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False,
             strict: bool = False, vectorize: bool = False,
             strategy: str = "reverse-mode") -> Any:
    """The Jacobian of `func` at `inputs`: [*output, *input] for each pair of them.

    A tuple for several inputs, in a tuple for several outputs.  It is computed as one batch
    whether or not `vectorize` asks for it.
    """
    from facula.func.jacobians import jacfwd, jacrev
    _strategy(strategy)
    many, given = _tuple(inputs, "inputs", "jacobian")
    if strict:
        _dry(_Function(func, "jacobian", create_graph, True), given)
    run = _Function(func, "jacobian", create_graph, False)
    transform = jacfwd if strategy == "forward-mode" else jacrev
    rows = transform(run, argnums=tuple(range(len(given))))(*given)
    found = tuple([_given_back(row, many, create_graph) for row in rows])
    return found if run.many else found[0]


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False,
            strict: bool = False, vectorize: bool = False,
            outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """The Hessian of `func`, which returns a single element: [*input, *input] for each pair."""
    from facula.func.jacobians import jacfwd, jacrev
    _strategy(outer_jacobian_strategy)
    many, given = _tuple(inputs, "inputs", "hessian")
    run = _Function(func, "hessian", create_graph, strict, single=True)
    if strict:
        _dry(run, given)
        run.strict = False
    every = tuple(range(len(given)))
    outer = jacfwd if outer_jacobian_strategy == "forward-mode" else jacrev
    inner = jacrev(lambda *x: run(*x)[0], argnums=every)
    rows = outer(inner, argnums=every)(*given)
    found = tuple([_given_back(row, many, create_graph) for row in rows])
    return found if many else found[0]
