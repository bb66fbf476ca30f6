"""`Function`: operations whose gradient the user writes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from facula.autograd.packing import Packed
from facula.errors import GradientError, ShapeError, StaleTensorError
from facula.graph.record import Graph, Node, _local
from facula.tensor import Tensor, make, prim

__all__ = ["Function", "FunctionCtx", "once_differentiable", "Call", "wrap", "version"]


class FunctionCtx:
    """What `forward` leaves for `backward`; attributes of your own may be set on it."""

    def __init__(self) -> None:
        self._saved: list[tuple[Tensor | None, int]] = []
        self._forward: list[tuple[Tensor | None, int]] | None = None
        self._dirty: tuple[Tensor, ...] = ()
        self._constant: tuple[Tensor, ...] = ()
        self._materialize = True
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `backward`; overwriting one of them in place is then an error."""
        self._saved = [(t, -1 if t is None else version(t)) for t in tensors]

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `jvp`, which finds them in `saved_tensors`."""
        self._forward = [(t, -1 if t is None else version(t)) for t in tensors]

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What `save_for_backward` kept.  Raises StaleTensorError if one was overwritten."""
        if any(isinstance(t, Packed) for t, _ in self._saved):
            return tuple([t.unpack(_local.rec.grad) if isinstance(t, Packed) else t
                          for t, _ in self._saved])
        for t, number in self._saved:
            if t is not None and version(t) != number:
                raise StaleTensorError(
                    "one of the variables needed for gradient computation has been modified by "
                    f"an inplace operation: {t._node.spec}, given to save_for_backward, is at "
                    f"version {version(t)}; expected version {number} instead")
        return tuple([t for t, _ in self._saved])

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say which inputs `forward` has overwritten in place."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which outputs have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` is given zeros (the default) or None where no gradient arrives."""
        self._materialize = value


def version(t: Tensor) -> int:
    storage = t._storage
    return storage.version - storage.shows if storage is not None else t._version


class Function:
    """Base class of operations with a gradient of their own.

    Define `forward(ctx, *args)` (or `forward(*args)` and `setup_context(ctx, inputs, output)`)
    and `backward(ctx, *grad_outputs)` as static methods, and call `apply`.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise TypeError("You must implement the backward function for your custom "
                        "autograd.Function to use it with backward mode AD.")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """The tangents of the outputs from those of the arguments, for forward derivatives."""
        raise NotImplementedError("You must implement the jvp function for custom "
                                  "autograd.Function to use it with forward mode AD.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Overridden where `forward` takes no ctx."""

    generate_vmap_rule: bool = False
    """PyTorch's switch; here `forward` and `backward` are mapped unless there is a `vmap`."""

    vmap: Any = None
    """Overridden with `vmap(info, in_dims, *args)` where `forward` cannot be mapped as it is: what
    a batch gives, and which dimensions of the results are the batch (`(outputs, out_dims)`).
    `info` has `batch_size` and `randomness`."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` and record the call."""
        rec = _local.rec
        if cls.vmap is not None and rec.outer is not None:
            found = rec.custom(cls, args)                    # type: ignore[attr-defined]
            if found is not NotImplemented:
                return found
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple([isinstance(a, Tensor) and rec.grad and a.requires_grad
                                      for a in args])
        nodes = [a._node if need else None for a, need in zip(args, ctx.needs_input_grad)]
        inputs = [a._node if isinstance(a, Tensor) else None for a in args]
        grad, rec.grad = rec.grad, False
        try:
            if cls.setup_context is not Function.setup_context:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args)
        finally:
            rec.grad = grad
        if not any(ctx.needs_input_grad) and not rec.forward:
            return result
        many = isinstance(result, (tuple, list))
        outs = list(result) if many else [result]
        call = Call(cls, ctx, nodes, len(outs))
        call.inputs = inputs
        wrapped = wrap(call, outs)
        ctx._saved = [_swap(t, v, outs, wrapped) for t, v in ctx._saved]
        if ctx._forward is not None:
            ctx._forward = [_swap(t, v, outs, wrapped) for t, v in ctx._forward]
        if rec.packing is not None:
            ctx._saved = [(t if t is None else rec.packing.tensor(t), v) for t, v in ctx._saved]
        return tuple(wrapped) if many else wrapped[0]


def _swap(t: Tensor | None, number: int, outs: list[Any], wrapped: list[Any]
          ) -> tuple[Tensor | None, int]:
    """What was saved and its version; an output, as the tensor that its caller gets."""
    for before, after in zip(outs, wrapped):
        if t is before and t is not after and t is not None:
            # `forward` may have filled it in place: the caller's counts from anew
            return after, number - version(t) + version(after)
    return t, number


def wrap(call: Call, outs: list[Any]) -> list[Any]:
    """The outputs of a call as tensors whose gradient goes to it."""
    rec = _local.rec
    ctx = call.ctx
    linked = call.linked or any(n is not None for n in call.nodes)
    wrapped: list[Any] = []
    grad, rec.grad = rec.grad, True
    rec.depth += 1                                           # all in one graph: no flush between
    try:
        for out in outs:                # what they are read from comes before all that is marked
            if isinstance(out, Tensor):
                out._fresh()
        for k, out in enumerate(outs):
            if not isinstance(out, Tensor) or out.dtype.kind not in "fc" \
                    or any(out is c for c in ctx._constant):
                wrapped.append(out)
                continue
            # A step that is kept when the graph is sealed: what is made again has no Call.
            t = prim("graft", make(out._node, linked), make(out._node))
            graph, index = t._node.at
            assert graph is not None
            graph.functions[index] = (call, k)
            call.places.append(index)
            call.specs[k] = out._node.spec
            if any(out is d for d in ctx._dirty):
                rec.grad = False
                out._write(t)
                rec.grad = True
                out._rg, out._leaf = linked, False
                t = out
            wrapped.append(t)
    finally:
        rec.depth -= 1
        rec.grad = grad
    return wrapped


class Call:
    """One application: waits for the gradients of its outputs, then runs `backward`.

    `nodes` are the values of the arguments that gradients go to, `inputs` those of all that are
    tensors, `places` where its outputs stand in their graph.  `linked` says that gradients go to
    other values too, which are not arguments.
    """

    linked = False

    def __init__(self, cls: Any, ctx: FunctionCtx, nodes: list[Node | None], count: int):
        self.cls = cls
        self.ctx = ctx
        self.nodes = nodes
        self.inputs: list[Node | None] = nodes
        self.places: list[int] = []
        self.specs: list[Any] = [None] * count
        self.gradients: list[Tensor | None] = [None] * count

    def forward(self, trace: Any, known: dict[int, Tensor | None], k: int) -> Tensor | None:
        """The tangent of output `k`; `known` has those of what came before, by place."""
        tangents = [None if n is None else known.get(trace.where(n)) for n in self.inputs]
        if all(t is None for t in tangents):
            return None
        if self.ctx._materialize:
            tangents = [_zeros(n.spec) if t is None and n is not None and n.spec.dtype.kind in "fc"
                        else t for n, t in zip(self.inputs, tangents)]
        ctx = self.ctx
        saved = ctx._saved
        if ctx._forward is not None:
            ctx._saved = ctx._forward
        try:
            result = self.cls.jvp(ctx, *tangents)
        finally:
            ctx._saved = saved
        slopes = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(slopes) != len(self.specs):
            raise GradientError(f"function {self.cls.__name__}: jvp returned {len(slopes)} "
                                f"tangents for {len(self.specs)} outputs")
        marks = {trace.graph.functions[p][1]: p for p in self.places}
        for j, place in marks.items():
            t = slopes[j]
            if t is not None and tuple(t.shape) != self.specs[j].shape:
                raise ShapeError(f"function {self.cls.__name__}: jvp returned a tangent of shape "
                                 f"{list(t.shape)} at index {j} but expected shape compatible "
                                 f"with {list(self.specs[j].shape)}")
            known[place] = t
        return known[marks[k]]

    def receive(self, run: Any, graph: Graph, index: int, k: int, gradient: Tensor | None) -> None:
        """Take the gradient of output `k`; the first output is the last to come."""
        self.gradients[k] = gradient
        if index != self.places[0]:
            return
        gradients, self.gradients = self.gradients, [None] * len(self.gradients)
        if all(g is None for g in gradients):
            return
        if self.ctx._materialize:
            gradients = [_zeros(s) if g is None and s is not None else g
                         for g, s in zip(gradients, self.specs)]
        self.differentiate(run, gradients)

    def differentiate(self, run: Any, gradients: list[Tensor | None]) -> None:
        """Call `backward` with the outputs' gradients, and send on what it returns."""
        result = self.cls.backward(self.ctx, *gradients)
        parts = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        while len(parts) > len(self.nodes) and parts[-1] is None:
            parts = parts[:-1]
        if len(parts) != len(self.nodes):
            raise GradientError(f"function {self.cls.__name__}Backward returned an incorrect "
                                f"number of gradients (expected {len(self.nodes)}, got "
                                f"{len(parts)})")
        for number, (node, part) in enumerate(zip(self.nodes, parts)):
            if node is None or part is None:
                continue
            if part.shape != node.spec.shape:
                raise ShapeError(f"Function {self.cls.__name__}Backward returned an invalid "
                                 f"gradient at index {number} - got {list(part.shape)} but "
                                 f"expected shape compatible with {list(node.spec.shape)}")
            if part.dtype is not node.spec.dtype:
                part = prim("cast", part, dtype=node.spec.dtype)
            run.route(node, part)


def _zeros(spec: Any) -> Tensor:
    zero = 0j if spec.dtype.kind == "c" else 0.0
    return prim("full", attrs=(zero,), shape=spec.shape, dtype=spec.dtype)


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """For a `backward` that must not itself be differentiated."""
    @functools.wraps(fn)
    def run(ctx: Any, *gradients: Any) -> Any:
        rec = _local.rec
        grad, rec.grad = rec.grad, False
        try:
            return fn(ctx, *gradients)
        finally:
            rec.grad = grad
    return run
