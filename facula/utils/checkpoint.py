"""Less memory for more computing: `torch.utils.checkpoint`.

A checkpointed call keeps what it was given instead of what its gradient will read, and is made a
second time in the backward pass (Chen et al. 2016, "Training deep nets with sublinear memory
cost").
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

from facula.autograd.recompute import CheckpointError, recomputed
from facula.nn.modules.container import Sequential
from facula.tensor import Tensor

__all__ = ["checkpoint", "checkpoint_sequential", "CheckpointError", "noop_context_fn",
           "check_backward_validity", "detach_variable"]


def noop_context_fn() -> tuple[Any, Any]:
    """Two contexts that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


def check_backward_validity(inputs: Any) -> None:
    """Warn if none of the inputs requires a gradient."""
    if not any(isinstance(t, Tensor) and t.requires_grad for t in inputs):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None",
                      stacklevel=3)


def detach_variable(inputs: Any) -> tuple[Any, ...]:
    """The inputs cut from their history, each as far a variable as it was."""
    if not isinstance(inputs, tuple):
        raise RuntimeError("Only tuple of tensors is supported. Got Unsupported input type: "
                           + type(inputs).__name__)
    out = []
    for t in inputs:
        if isinstance(t, Tensor):
            wanted = t.requires_grad
            t = t.detach()
            t.requires_grad = wanted
        out.append(t)
    return tuple(out)


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
               context_fn: Any = noop_context_fn, determinism_check: str = "default",
               debug: bool = False, early_stop: bool = True, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`, computed again in the backward pass instead of kept.

    The function must do the same both times.  Random numbers are drawn anew from the same place
    (not with `preserve_rng_state=False`), and `context_fn()` returns a context for each of the
    two calls.  With `use_reentrant=True`, the default as in PyTorch, there is a gradient only if
    one of `args` itself requires one, and no keyword arguments are passed on; both kinds can be
    differentiated in every way here.  Only what the gradient needs is computed again, whatever
    `early_stop` says.

    Raises ValueError for arguments that do not go together, CheckpointError in the backward pass
    if results differ in shape or dtype (not with `determinism_check="none"`), StaleTensorError if
    an argument was overwritten in between.
    """
    if use_reentrant is None:
        warnings.warn("checkpoint: the use_reentrant parameter should be passed "
                      "explicitly; use_reentrant=False is recommended, and "
                      "use_reentrant=True the default", stacklevel=2)
        use_reentrant = True
    preserve = bool(kwargs.pop("preserve_rng_state", True))
    if determinism_check not in ("default", "none"):
        raise ValueError("determinism_check should be one of ['default', 'none'], but got "
                         f"{determinism_check}")
    if use_reentrant:
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        if context_fn is not noop_context_fn or debug is not False:
            raise ValueError("Passing `context_fn` or `debug` is only supported when "
                             "use_reentrant=False.")
        from facula.autograd import is_grad_enabled, no_grad
        if is_grad_enabled():
            check_backward_validity(args)
        if not any(isinstance(t, Tensor) and t.requires_grad for t in args):
            with no_grad():
                return function(*args)
    return recomputed(function, args, kwargs, context_fn, preserve, determinism_check != "none")


def checkpoint_sequential(functions: Any, segments: int, input: Any,
                          use_reentrant: bool | None = None, **kwargs: Any) -> Any:
    """A `Sequential` or a list of functions in `segments` parts, all but the last checkpointed.

    Raises ValueError for keyword arguments other than `preserve_rng_state`.
    """
    if use_reentrant is None:
        warnings.warn("checkpoint_sequential: the use_reentrant parameter "
                      "should be passed explicitly; use_reentrant=False is recommended, and "
                      "use_reentrant=True the default", stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    parts = list(functions.children() if isinstance(functions, Sequential) else functions)

    def run(some: list[Any]) -> Callable[[Any], Any]:
        def forward(value: Any) -> Any:
            for each in some:
                value = each(value)
            return value
        return forward

    size = len(parts) // segments
    start = 0
    for start in range(size, size * segments, size) if size else ():
        input = checkpoint(run(parts[start - size:start]), input, use_reentrant=use_reentrant,
                           preserve_rng_state=preserve)
    return run(parts[start:])(input)
