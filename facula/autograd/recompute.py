"""Calls whose insides are not kept for the gradient but computed once more when it is taken.

The call is recorded like any other operations, so that it is fused with what surrounds it; its
results are then cut from their history, and what they were computed from need never be in
memory.  In the backward pass the call is repeated in a graph of its own: there is no earlier
computation that the compiler could take the repeated one for, and the program that computes it
ends with the gradients, so that its memory is free for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from facula.autograd.engine import Pass
from facula.autograd.function import Call, FunctionCtx, version, wrap
from facula.errors import FaculaError, StaleTensorError
from facula.generator import default_generator
from facula.graph import record as _record
from facula.graph.record import Node, _local
from facula.tensor import Tensor, prim

__all__ = ["CheckpointError", "recomputed"]

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]


class CheckpointError(FaculaError):
    """A checkpointed function that did not do the same the second time."""


def recomputed(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
               contexts: Contexts, preserve_rng: bool, check: bool) -> Any:
    """`fn(*args, **kwargs)`, to be called again for its gradient.

    `contexts()` gives a context for the first call and one for the second.  With `preserve_rng`
    both draw the same random numbers; with `check` it is an error (CheckpointError) if the second
    has results of other shapes or dtypes.
    """
    rec = _local.rec
    if rec.outer is not None:           # what a transform keeps is decided where it ends
        return fn(*args, **kwargs)
    first, second = contexts()
    before = _stream()
    effects = 0 if rec.tape is None else len(rec.tape.drawn)
    with first:
        result = fn(*args, **kwargs)
    if not rec.grad:
        return result
    outs = list(tensors(result))
    if not any(t.requires_grad for t in outs):
        return result
    drawn = before if preserve_rng and _stream() != before else None
    call = Again(fn, args, kwargs, second, drawn, check, len(outs))
    if rec.tape is not None and drawn is not None:
        call.draws = rec.tape.drawn[effects:]
    grad, rec.grad = rec.grad, False
    try:
        cut = [prim("alias", t) for t in outs]
    finally:
        rec.grad = grad
    call.ctx.mark_non_differentiable(*[c for c, t in zip(cut, outs) if not t.requires_grad])
    return replaced(result, iter(wrap(call, cut)))


def _stream() -> tuple[int, int]:
    return default_generator._seed, default_generator._position


class Again(Call):
    """One checkpointed call, waiting for the gradients of its results."""

    linked = True           # what the function can see of outside gets its gradient as well

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
                 context: AbstractContextManager[Any], stream: tuple[int, int] | None,
                 check: bool, count: int):
        ctx = FunctionCtx()
        ctx.set_materialize_grads(False)
        given = list(tensors((args, kwargs)))
        super().__init__(type(self), ctx, [t._node for t in given if t.requires_grad], count)
        self.fn, self.args, self.kwargs = fn, args, kwargs
        self.context, self.stream, self.check = context, stream, check
        self.amp = _local.rec.amp
        self.draws: list[int] = []
        self.versions = [(t, version(t)) for t in given]

    def differentiate(self, run: Any, gradients: list[Tensor | None]) -> None:
        """Call the function again, and send the gradients through what that records."""
        for t, number in self.versions:
            if version(t) != number:
                raise StaleTensorError(
                    "one of the variables needed for gradient computation has been modified by "
                    f"an inplace operation: {t._node.spec}, given to a checkpointed function, is "
                    f"at version {version(t)}; expected version {number} instead")
        rec = run.rec
        run.pure = False
        inner = _Inner(run)
        outs = self._again(rec)
        if self.check:
            self._compare(outs)
        for out, gradient in zip(outs, gradients, strict=False):
            if gradient is not None and out.requires_grad:
                inner.route(out._node, gradient)
        del outs, gradients[:]
        inner.run()
        inner.free()
        if not run.retain_graph:
            self.args, self.kwargs, self.versions = (), {}, []
            self.nodes = self.inputs = []
        if not rec.depth:
            _record.flush(rec, True)

    def _again(self, rec: Any) -> list[Tensor]:
        grad, rec.grad = rec.grad, True
        now = _stream()
        amp = rec.amp
        if amp is not self.amp:
            rec.set_amp(self.amp)
        if self.stream is not None:
            default_generator._seed, default_generator._position = self.stream
        tape = rec.tape
        if tape is not None:
            tape.again, drawn = list(self.draws), len(tape.drawn)
        try:
            with self.context:
                return list(tensors(self.fn(*self.args, **self.kwargs)))
        finally:
            if tape is not None and self.stream is not None \
                    and tape.drawn[drawn:] != self.draws:
                tape.refuse("a checkpointed function draws other random numbers the second time")
            rec.grad = grad
            if amp is not self.amp:
                rec.set_amp(amp)
            if tape is not None:
                tape.again = []
            if self.stream is not None:
                default_generator._seed, default_generator._position = now

    def _compare(self, outs: list[Tensor]) -> None:
        if len(outs) != len(self.specs):
            raise CheckpointError(f"a checkpointed function returned {len(self.specs)} tensors, "
                                  f"and {len(outs)} when it was called again for its gradient: "
                                  "it must do the same each time")
        for k, (out, before) in enumerate(zip(outs, self.specs, strict=True)):
            if before is not None and out._node.spec is not before:
                raise CheckpointError(
                    f"Recomputed values have different metadata than during the forward pass: "
                    f"result {k} of a checkpointed function was {before}, and {out._node.spec} "
                    "when it was called again: it must do the same each time")


class _Inner(Pass):
    """The pass through a call that was repeated; what leaves the call goes on in `outer`."""

    def __init__(self, outer: Pass):
        super().__init__(outer.rec, outer.create_graph, outer.retain_graph)
        self.outer = outer
        self.begins = outer.rec.graph.sequence

    def leave(self, node: Node, gradient: Tensor) -> None:
        leaf = node.leaf() if node.leaf is not None else None
        origin = node.origin
        if (leaf is None or not leaf._leaf) and origin is not None and len(origin) == 2 \
                and origin[0].sequence >= self.begins:
            self.arrive(origin[0], origin[1], gradient)
        else:
            self.outer.leave(node, gradient)


# ---------------------------------------------------------------- tensors in what users return

def tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors in tuples, lists and dictionaries, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from tensors(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from tensors(part)


def replaced(tree: Any, new: Iterator[Any]) -> Any:
    """The same with other tensors, taken from `new` in order."""
    if isinstance(tree, Tensor):
        return next(new)
    if isinstance(tree, (tuple, list)):
        parts = [replaced(part, new) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        made = [(k, replaced(part, new)) for k, part in tree.items()]
        return type(tree)(made)
    return tree
