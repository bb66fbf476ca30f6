"""Tensor: what users hold.  It records; it does not compute.

A tensor is a handle on a value of the graph (`_node`), plus, once something aliases it, the
`Storage` it shares (`storage.py`).  In-place operations never change a value: they give the
storage a new current value and count its version; views then replay their path from it when
next read.
"""

from __future__ import annotations

import weakref
from typing import Any

from facula.dtype import DType, float32, from_numpy_dtype
from facula.errors import GradientError, ShapeError, user_line
from facula.graph import record as _record
from facula.graph.record import LOCK, Edge, Node, _local
from facula.graph.spec import Step, freeze_number, spec
from facula.graph.tape import changes
from facula.graph.template import Table
from facula.runtime.allocator import Buffer as _Buffer
from facula.runtime.allocator import from_numpy_private as _private
from facula.storage import Size, Storage, lay_out, spread_out

__all__ = ["Tensor", "prim", "scalar", "make", "from_array", "from_buffer", "DETACHED"]

DETACHED = ("detached",)
"""Attributes of an `alias` that no tangent flows through: what `detach` records in a trace."""

_acquire, _release = LOCK.acquire, LOCK.release


class Tensor:
    """An n-dimensional array of one dtype, recorded now and computed when a value is needed.

    Create one with `facula.tensor`, `facula.zeros` and the like.
    """

    _storage: Storage | None = None
    _unseen: bool = False        # made by `.data`: what is written to it, autograd is not told
    _version: int = 0            # version of the storage that `_node` stands for
    _rg: bool = False
    _leaf: bool = False          # requires_grad was asked for by the user
    _grad: Tensor | None = None
    _path: tuple[Any, ...] = ()  # from the storage's value to this view
    _strides: tuple[int, ...] | None = None
    _offset: int = 0
    _base: Tensor | None = None
    _detached: bool = False
    _hooks: Any = None
    _post_hooks: Any = None
    _retain: bool = False
    _guarded: bool = False       # a captured call depends on its flags: changes are counted
    _node: Node

    # -- what is known without computing anything
    @property
    def shape(self) -> Size:
        return Size(self._node.spec.shape)

    @property
    def dtype(self) -> DType:
        return self._node.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self._node.spec.shape)

    def numel(self) -> int:
        """The number of elements."""
        return self._node.spec.numel

    @property
    def requires_grad(self) -> bool:
        self._fresh()
        return self._rg

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        return self._leaf or not self.requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Ask for this tensor's gradient to be collected in `.grad`, in place."""
        if self._guarded:
            changes[0] += 1
        self._fresh()
        if not requires_grad:
            if self._rg and not self._leaf:
                raise GradientError("you can only change requires_grad flags of leaf variables. "
                                    "If you want to use a computed variable in a subgraph that "
                                    "doesn't require differentiation use var_no_grad = "
                                    "var.detach().")
            self._rg = self._leaf = False
            return self
        if self._rg:
            return self
        if self.dtype.kind not in "fc":
            raise GradientError("only Tensors of floating point and complex dtype can require "
                                f"gradients, and this one is {self.dtype.name}")
        self._rg = self._leaf = True
        self._detached = False
        node = self._node
        if node.origin is not None or node.value is None \
                or (node.leaf is not None and node.leaf() is not None):
            # This value may have a history of its own, where the gradient must not go on.
            self._node = _alias(make(node))._node
        self._own_leaf()
        return self

    def _own_leaf(self) -> None:
        """Make the current value's node collect gradients for this tensor."""
        node = self._node
        node.leaf = weakref.ref(self)
        graph, index = node.at
        if graph is not None and not graph.sealed:
            graph.leaf_nodes[index] = node

    # -- keeping up with in-place writes through aliases
    def _fresh(self) -> None:
        """Catch up with the storage if an alias has written to it."""
        storage = self._storage
        if storage is not None and storage.version != self._version:
            self._sync()

    def _sync(self) -> None:
        storage = self._storage
        assert storage is not None
        self._version = storage.version
        node = storage.node
        if self._detached and _local.rec.forward:
            node = _still(node)
        if not self._path:
            if self._node is node:
                return
            self._node = node
            if self._leaf:
                if storage.rg:
                    self._node = _alias(make(node))._node
                self._own_leaf()
            elif not self._detached:
                self._rg = storage.rg
            return
        base = self._base
        if base is not None and base._leaf and base._rg and not base._path \
                and not self._detached:
            base._fresh()
            value = base                # the storage does not know that its owner became a leaf
        else:
            value = make(node, storage.rg and not self._detached)
        for name, attrs, shape, dtype in self._path:
            value = prim(name, value, attrs=attrs, shape=shape, dtype=dtype, view=True)
        self._node = value._node
        if not self._leaf:
            self._rg = value._rg
        if getattr(storage.node.value, "shared", False):
            self._look_again()
        if self._leaf:
            if self._node is value._node and value._rg:
                self._node = _alias(make(self._node))._node
            self._own_leaf()

    def _look_again(self) -> None:
        """Make this view of memory that others write to be read anew each time."""
        if self._rg and not self._leaf:
            self._version = -1              # a version that no storage has: replayed each time
            return
        storage = self._storage
        assert storage is not None
        array = self._look(storage.node.value, storage.node.strides)
        try:
            buffer, strides = _Buffer.of(array)
        except ValueError:
            self._version = -1
            return
        # Over the memory itself, so that a graph takes a copy of this part alone.
        self._node = Node((None, -1), self._node.spec, buffer, strides)

    def _share(self) -> Storage:
        """This tensor's storage, made when the first alias appears."""
        self._fresh()
        if self._storage is None:
            self._storage = Storage(self._node, self._version, self._rg, self._strides)
        return self._storage

    def _view(self, name: str, attrs: tuple[Any, ...], shape: tuple[int, ...],
              strides: tuple[int, ...], offset: int, dtype: DType | None = None) -> Tensor:
        """A tensor that aliases this one through the movement primitive `name`.

        `strides` and `offset` are what `stride()` and `storage_offset()` of the view say.
        """
        storage = self._share()
        shape = tuple(shape)
        value, rec = storage.node.value, _local.rec
        outside = value is not None and getattr(value, "shared", False)
        if outside and not self._rg and rec.tape is None and rec.outer is None:
            # Looked at anew at each use, so not read now: a graph takes a copy of what it reads.
            found, _ = _settle(name, [self._node.spec], attrs, shape, dtype, [0])
            view = make(Node((None, -1), found))
        else:
            view = prim(name, self, attrs=attrs, shape=shape, dtype=dtype, view=True)
        view._storage = storage
        view._version = storage.version
        view._path = (*self._path, (name, attrs, shape, dtype))
        view._strides = tuple(strides)
        view._offset = offset
        view._base = self._base if self._base is not None else self
        view._detached = self._detached or not rec.grad
        if outside:
            view._look_again()
        return view

    def detach(self) -> Tensor:
        """A tensor that shares this one's memory and takes no part in gradients."""
        storage = self._share()
        out = object.__new__(Tensor)
        out._node = _still(self._node) if _local.rec.forward else self._node
        out._storage = storage
        out._version = self._version
        out._path = self._path
        out._strides = self._strides
        out._offset = self._offset
        out._detached = True
        return out

    def detach_(self) -> Any:
        """Cut this tensor from its history, in place."""
        if self._guarded:
            changes[0] += 1
        if self._path:
            raise GradientError("Can't detach views in-place. Use detach() instead")
        self._fresh()
        self._node = self._share().node
        if self._rg and not self._leaf:
            clean = Node(self._node.at, self._node.spec, self._node.value, self._node.strides)
            if clean.value is None:
                clean.at[0].handles.append(clean)       # type: ignore[union-attr]
            self._node = clean
            assert self._storage is not None
            self._storage.node, self._storage.rg = clean, False
        self._rg = self._leaf = False
        return self

    @property
    def data(self) -> Tensor:
        """The same memory without history; writing to it is not seen by autograd."""
        out = self.detach()
        out._unseen = True
        return out

    @data.setter
    def data(self, value: Tensor) -> None:
        if self._guarded:
            changes[0] += 1
        value._fresh()
        if value._path or value._storage is not None:
            self._storage = value._storage
            self._version = value._version
            self._path = value._path
        else:
            self._storage = value._share()
            self._version = value._version
            self._path = ()
        self._strides, self._offset, self._node = value._strides, value._offset, value._node
        self._detached = not self._rg
        if self._leaf:
            self._own_leaf()

    # -- in-place writes
    def _write(self, value: Tensor, where: str | None = None, start: int = 1 << 60) -> Tensor:
        """Make `value` (a fresh tensor of this shape and dtype) the new content; returns self.

        `where` is the user's line, if the caller knows it.  Steps of the pending graph from
        number `start` on belong to this operation and may read what it overwrites.
        """
        self._fresh()
        node = self._node
        if value._node.spec is not node.spec:
            _check_write(node.spec, value._node.spec)
        rec = _local.rec
        if rec.grad and (value._rg or self._rg):
            if self._leaf:
                raise GradientError("a leaf Variable that requires grad is being used in an "
                                    "in-place operation.")
            if self._base is not None and self._base._leaf and self._base._rg:
                raise GradientError("a view of a leaf Variable that requires grad is being used "
                                    "in an in-place operation.")
        with LOCK:
            if self._path:
                value = _write_through(self, value)
            new = value._node
            if new.value is not None or new.at[0] is not rec.graph:
                value = _alias(value)
                new = value._node
            storage = self._storage
            old = storage.node if storage is not None else node
            if rec.outer is not None:
                rec.written_to(old, new)
            if (storage.rg if storage is not None else self._rg) and not value._rg \
                    and not self._leaf and (not rec.grad or self._detached) \
                    and (self._base is None or not self._base._leaf) \
                    and (old.leaf is None or old.leaf() is None):
                value = _grafted(rec, old, value)
                new = value._node
            graph, index = old.at
            stale = (where or user_line(2) or "?", rec.graph.sequence, start)
            if self._unseen or self._base is not None and self._base._unseen:
                pass                    # by way of `.data`: gradients read what was there before
            elif graph is not None and old.value is None:
                graph.stale[index] = stale
            else:
                old.stale = stale
                if old.origin is not None and len(old.origin) == 2:
                    old.origin[0].stale[old.origin[1]] = stale
            home = old.home if old.value is None else old
            old_home_shared = False
            if home is not None and home is not new:
                new.home = home
                if old.value is None:
                    old.home = None
                old_home_shared = getattr(home.value, "shared", False)
            if storage is not None:
                storage.node = new
                storage.version += 1
                if not self._detached or value._rg:
                    storage.rg = value._rg
                self._version = storage.version
                if self._path:
                    self._version -= 1          # replay the path from the new value when read
                else:
                    self._node = new
            else:
                self._node = new
                self._version += 1
        if self._leaf:
            if not self._path:
                self._own_leaf()
        elif not self._path:
            self._rg = value._rg and not self._detached
        if old_home_shared:
            _record.flush(rec)
        return self

    def _replace(self, new: Node, stale: tuple[str, int, int]) -> None:
        """`_write` for an optimiser: gradients are off, and `new` was recorded just now.

        `stale` is what its node remembers of being overwritten.
        """
        storage = self._storage
        if storage is not None and storage.version != self._version:
            self._sync()
        old = self._node
        if self._path or old.value is None or old.value.shared or old.spec is not new.spec \
                or new.value is not None or _local.rec.outer is not None:
            self._write(make(new), stale[0])
            return
        old.stale = stale
        origin = old.origin
        if origin is not None and len(origin) == 2:
            origin[0].stale[origin[1]] = stale
        new.home = old
        self._node = new
        self._version += 1
        if storage is not None:
            storage.node = new
            storage.version = self._version
        if self._leaf:
            new.leaf = old.leaf
            graph, index = new.at
            graph.leaf_nodes[index] = new           # type: ignore[union-attr]

    __hash__ = object.__hash__         # tensors are keys by identity, whatever == means

    def _numpy(self) -> Any:
        """The ndarray that shares this tensor's memory, once its value is computed.

        As long as somebody holds it the memory counts as shared: graphs read a copy of it, and
        in-place operations write into it at once.
        """
        buffer, strides = self._memory()
        if not buffer.shared:
            # What has been recorded reads the content of before anybody outside changes it.
            node = self._node if self._storage is None else self._storage.node
            graph = node.at[0]
            if graph is not None and not graph.sealed:
                _record.flush(graph.owner)
            storage = self._storage
            if storage is not None:
                storage.version += 1
                storage.shows += 1
        return self._look(buffer, strides, True)

    def _peek(self) -> Any:
        """The value as an ndarray for reading now; it must not be kept."""
        buffer, strides = self._memory()
        return self._look(buffer, strides)

    def _memory(self) -> tuple[Any, Any]:
        from facula.graph.flush import value_of
        tape = _local.rec.tape
        if tape is not None:
            tape.refuse("a value was asked for during the call")
        self._fresh()
        storage = self._storage
        node = self._node if storage is None else storage.node
        value, strides = value_of(node)
        if type(value) is not _Buffer:                    # a runtime scalar: give it memory
            import numpy as np
            value = node.value = _private(np.asarray(value, node.spec.dtype.np))
        wanted = storage.strides if storage is not None else self._strides
        if strides != wanted:
            if node.value is None:                        # of a trace: a copy was made for us
                return spread_out(value.array(node.spec, strides), wanted), wanted
            return lay_out(node, wanted), wanted
        return value, strides

    def _look(self, buffer: Any, strides: Any, lend: bool = False) -> Any:
        if not self._path:
            return buffer.array(self._node.spec, strides, lend)
        from numpy.lib.stride_tricks import as_strided
        assert self._storage is not None and self._strides is not None
        whole = buffer.array(self._storage.node.spec, strides, lend)
        spec = self._node.spec
        if strides is None:
            whole = whole.reshape(-1)
        else:
            start = as_strided(whole, (1,), (whole.itemsize,))
            whole = as_strided(start, (1 << 36,), (whole.itemsize,))
        if any(step[3] is not None for step in self._path):
            whole = whole.view(spec.dtype.np)
        if not spec.numel:
            return whole[:0].reshape(spec.shape)
        size = whole.itemsize
        strides = [s * size for s in self._strides]
        if spec.dtype.is_compact:       # NumPy's function does not know ml_dtypes' names
            raw = as_strided(whole[self._offset:].view("u1"), spec.shape, strides)
            return raw.view(spec.dtype.np)
        return as_strided(whole[self._offset:], spec.shape, strides)


def make(node: Node, rg: bool = False) -> Tensor:
    """Wrap a node as a tensor."""
    t = object.__new__(Tensor)
    t._node = node
    if rg:
        t._rg = True
    return t


def prim(name: str, *tensors: Tensor, attrs: tuple[Any, ...] = (),
         shape: tuple[int, ...] | None = None, dtype: DType | None = None,
         view: bool = False) -> Tensor:
    """Record one primitive operation; its operands already agree in shape and dtype.

    `shape` and `dtype` say what cannot be inferred (reshape, expand, cast, full, ...).
    """
    rec = _local.rec
    _acquire()                  # `with LOCK` takes twice as long
    try:
        graph = rec.graph
        places = []
        for t in tensors:
            storage = t._storage
            if storage is not None and storage.version != t._version:
                t._sync()
            node = t._node
            owner, i = node.at
            if owner is not graph:
                i = rec.adopt(node)
            places.append(~i if t._rg and rec.grad else i)
        state = graph.state
        key = (name, attrs, shape, dtype, view, *places)
        edge = state.edges.get(key)
        if edge is None:
            edge = _new_edge(rec, key, name, tensors, attrs, shape, dtype, places, view)
        graph.state = edge.state
        out = object.__new__(Tensor)
        out._node = node = Node((graph, edge.index), edge.spec)   # type: ignore[arg-type]
        graph.handles.append(node)
        if edge.rg:
            out._rg = True
        if edge.state.count > _record.MAX_STEPS and not rec.depth:
            _record.flush(rec)
        return out
    finally:
        _release()


_COMPUTING = ("elementwise", "reduce", "scan", "contract", "convolution", "sort", "matrix")


def _new_edge(rec: Any, key: Any, name: str, tensors: tuple[Tensor, ...], attrs: tuple[Any, ...],
              shape: tuple[int, ...] | None, dtype: DType | None, places: list[int],
              view: bool) -> Edge:
    """Check a primitive's operands, infer its result and enter it into the trie."""
    state = rec.graph.state
    specs = [t._node.spec for t in tensors]
    # 1, 1.0 and True are equal, and not the same attribute.
    like = (name, attrs, *map(type, attrs), shape, dtype, *specs, *[p < 0 for p in places])
    found = _settled.get(like)
    if found is None:
        found = _settle(name, specs, attrs, shape, dtype, places)
        _settled.keep(like, found)
    out, mask = found
    step = Step(name, attrs, tuple([~p if p < 0 else p for p in places]), out, mask,
                user_line(3), view)
    edge = Edge(rec.new_state((step,)), state.count, out, mask != 0)
    state.edges[key] = edge
    return edge


_settled = Table(16384)
"""The result and the mask of primitives, by all that they depend on."""


def _settle(name: str, specs: list[Any], attrs: tuple[Any, ...], shape: tuple[int, ...] | None,
            dtype: DType | None, places: list[int]) -> tuple[Any, int]:
    from facula.ops.table import PRIMS
    table = PRIMS[name]
    given = None
    if shape is not None or dtype is not None:
        given = spec(shape if shape is not None else specs[0].shape,
                     dtype if dtype is not None else specs[0].dtype if specs else float32)
    out = table.infer(specs, attrs, given)
    if table.kind in _COMPUTING and any([s.dtype.is_compact for s in specs]) \
            and name not in ("cast", "bitcast", "where", "alias"):
        raise NotImplementedError(
            f"{name!r} is not implemented for {specs[-1].dtype!r}: numbers of 8 bits are kept and "
            "converted, and computed with as .to(facula.float32)")
    mask = 0
    if table.vjp is not None and out.dtype.kind in "fc":
        for k, place in enumerate(places):
            if place < 0 and specs[k].dtype.kind in "fc":
                mask |= 1 << k
    return out, mask


def scalar(value: Any, dtype: DType) -> Tensor:
    """A 0-dim tensor holding a Python number that is not part of the graph's structure.

    Inside the body of a composite the number is static, and becomes a constant of the graph.
    """
    rec = _local.rec
    if rec.depth:
        return prim("full", attrs=(freeze_number(value),), shape=(), dtype=dtype)
    with LOCK:
        return make(rec.scalar(value, dtype))


def from_buffer(buffer: Any, spec: Any, strides: tuple[int, ...] | None = None) -> Tensor:
    """A tensor of `spec` over memory that is there already; strides count elements."""
    t = make(Node((None, -1), spec, buffer, strides))
    t._strides = strides
    return t


def from_array(array: Any, copy: bool = True) -> Tensor:
    """A tensor of an ndarray's dtype and shape.

    Without `copy` the two share memory where NumPy's is writable, aligned and in native byte
    order; a copy is made otherwise.  Raises TypeError for dtypes facula has none of.
    """
    dtype = from_numpy_dtype(array.dtype)
    shape = tuple(array.shape)
    if not copy and array.flags.writeable:
        try:
            buffer, strides = _Buffer.of(array)
        except ValueError:
            pass
        else:
            return from_buffer(buffer, spec(shape, dtype), strides)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return from_buffer(_private(array), spec(shape, dtype))


def _alias(t: Tensor) -> Tensor:
    return prim("alias", t)


def _still(node: Node) -> Node:
    """The value of `node` without its tangent."""
    return prim("alias", make(node), attrs=DETACHED)._node


def _grafted(rec: Any, old: Node, value: Tensor) -> Tensor:
    """`value` with the history of `old`, which it overwrites where nothing is recorded."""
    grad, rec.grad = rec.grad, True
    try:
        return prim("graft", make(old, True), value)
    finally:
        rec.grad = grad


def _check_write(mine: Any, other: Any) -> None:
    if mine.dtype is not other.dtype:
        raise GradientError(f"result type {other.dtype.name} can't be cast to the desired output "
                            f"type {mine.dtype.name}")
    raise ShapeError(f"output with shape {list(mine.shape)} doesn't match the broadcast shape "
                     f"{list(other.shape)}")


def _write_through(view: Tensor, value: Tensor) -> Tensor:
    """The storage's new value after `value` has been written through `view`'s path."""
    storage = view._storage
    assert storage is not None
    whole = make(storage.node, storage.rg and not view._detached)
    if any(step[0] == "expand" for step in view._path) and view._strides is not None \
            and storage.node.strides is None and all(step[3] is None for step in view._path) \
            and not any(s == 0 and n > 1 for s, n in zip(view._strides, view.shape)):
        # Part of an expanded tensor in which no element is met twice.
        return prim("as_strided_update", whole, value, attrs=(view._strides, view._offset))
    stages = [whole]
    for name, attrs, shape, dtype in view._path[:-1]:
        stages.append(prim(name, stages[-1], attrs=attrs, shape=shape, dtype=dtype, view=True))
    for (name, attrs, shape, _), before in zip(reversed(view._path), reversed(stages)):
        old = before._node.spec
        if name == "reshape":
            value = prim("reshape", value, shape=old.shape)
        elif name == "permute":
            inverse = [0] * len(attrs[0])
            for i, p in enumerate(attrs[0]):
                inverse[p] = i
            value = prim("permute", value, attrs=(tuple(inverse),))
        elif name == "slice":
            value = prim("slice_update", before, value, attrs=attrs)
        elif name == "as_strided":
            value = prim("as_strided_update", before, value, attrs=attrs)
        elif name == "bitcast":
            value = prim("bitcast", value, shape=old.shape, dtype=old.dtype)
        elif name == "expand" and old.shape == tuple(shape):
            pass
        elif name == "real":
            value = prim("complex", value, prim("imag", before))
        elif name == "imag":
            value = prim("complex", prim("real", before), value)
        elif 0 in view.shape:                        # nothing is written, once or twice
            return prim("alias", whole)
        else:
            raise GradientError("unsupported operation: more than one element of the written-to "
                                "tensor refers to a single memory location. Please clone() the "
                                "tensor before performing the operation.")
    return value
