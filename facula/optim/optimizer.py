"""Optimizer: parameter groups, state, and a step that is recorded as one operation.

A subclass says, for one parameter, which values it keeps (`slots`), which numbers change from
step to step (`numbers`) and how the new values follow from the old (`rule`).  The step over a
whole group is then recorded in one piece (`facula.ops.define.macro`): after the first time it
costs one look-up, whatever the number of parameters, and the compiler fuses it with the backward
pass.  Learning rates and the like are runtime scalars, so that a schedule never recompiles.
"""

from __future__ import annotations

import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np

from facula.dtype import DType, float32
from facula.graph import record as _record
from facula.graph.record import recorder, settle
from facula.graph.tape import Watched
from facula.nn.modules.hooks import HookDict, RemovableHandle
from facula.ops.define import macro
from facula.tensor import Tensor, scalar

__all__ = ["Optimizer", "required", "register_optimizer_step_pre_hook",
           "register_optimizer_step_post_hook"]


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()

_PRE: dict[int, Any] = HookDict()
_POST: dict[int, Any] = HookDict()


def _register(table: dict[int, Any], hook: Any) -> RemovableHandle:
    handle = RemovableHandle(table)
    table[handle.id] = hook
    return handle


def register_optimizer_step_pre_hook(hook: Any) -> RemovableHandle:
    """`hook(optimizer, args, kwargs)` before the step of every optimiser."""
    return _register(_PRE, hook)


def register_optimizer_step_post_hook(hook: Any) -> RemovableHandle:
    """`hook(optimizer, args, kwargs)` after the step of every optimiser."""
    return _register(_POST, hook)


def _hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """Run the step hooks around `step`."""
    @functools.wraps(step)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        if self._stepping or not (self._optimizer_step_pre_hooks or _PRE
                                  or self._optimizer_step_post_hooks or _POST):
            return step(self, *args, **kwargs)
        tape = recorder().tape
        if tape is not None:
            tape.refuse("an optimizer's step has hooks")
        self._stepping = True
        try:
            for hook in (*_PRE.values(), *self._optimizer_step_pre_hooks.values()):
                out = hook(self, args, kwargs)
                if out is not None:
                    if not (isinstance(out, tuple) and len(out) == 2):
                        raise RuntimeError(f"{step} must return None or a tuple of (new_args, "
                                           f"new_kwargs), but got {out}.")
                    args, kwargs = out
            result = step(self, *args, **kwargs)
            for hook in (*self._optimizer_step_post_hooks.values(), *_POST.values()):
                hook(self, args, kwargs)
            return result
        finally:
            self._stepping = False

    return call


def check(name: str, value: Any, ok: bool) -> None:
    """Raise ValueError as PyTorch words it unless `ok`."""
    if not ok:
        raise ValueError(f"Invalid {name}: {value}")


class Optimizer:
    """Base of all optimisers.

    `params` is an iterable of tensors, of (name, tensor) pairs or of dictionaries, each a group:
    its 'params' and any options that differ from `defaults`.
    """

    _where: str = "optimizer.step()"
    _opt_called: bool = False
    _stepping: bool = False

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of "
                            "Tensors or dicts, but got facula.Tensor")
        if hasattr(params, "named_parameters"):
            raise TypeError("params argument given to the optimizer should be an iterable of "
                            f"Tensors or dicts, but got the module {type(params).__name__}: give "
                            "its .parameters()")
        self.defaults = defaults
        self.state: defaultdict[Any, Any] = defaultdict(Watched)
        self.param_groups: list[dict[str, Any]] = []
        self._optimizer_step_pre_hooks: dict[int, Any] = HookDict()
        self._optimizer_step_post_hooks: dict[int, Any] = HookDict()
        self._optimizer_state_dict_pre_hooks: dict[int, Any] = HookDict()
        self._optimizer_state_dict_post_hooks: dict[int, Any] = HookDict()
        self._optimizer_load_state_dict_pre_hooks: dict[int, Any] = HookDict()
        self._optimizer_load_state_dict_post_hooks: dict[int, Any] = HookDict()
        self._updates: dict[Any, Any] = {}
        self._where = f"{type(self).__name__}.step()"
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _hooked(cls.__dict__["step"])    # type: ignore[method-assign]

    # -- groups
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with options of its own."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group: dict[str, Any] = dict(param_group)
        params = group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set):
            raise TypeError("optimizer parameters need to be organized in ordered collections, "
                            "but the ordering of tensors in sets will change between runs. "
                            "Please use a list instead.")
        params = list(params)
        named = [p for p in params if isinstance(p, tuple)]
        if named:
            if len(named) != len(params):
                raise ValueError("all optimizer params should be with/without names. Some param "
                                 "names are missing")
            group["param_names"] = [name for name, _ in params]
            params = [p for _, p in params]
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError("optimizer can only optimize Tensors, but one of the params is "
                                + type(p).__name__)
            if not (p.is_leaf or p._retain or self.defaults.get("differentiable")):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError("parameter group didn't specify a value of required "
                                 f"optimization parameter {name}")
            group.setdefault(name, default)
        if len(params) != len({id(p) for p in params}):
            import warnings
            warnings.warn("optimizer contains a parameter group with duplicate parameters; in "
                          "future, this will cause an error; see github.com/pytorch/pytorch/"
                          "issues/40967 for more information", stacklevel=3)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        if not known.isdisjoint(id(p) for p in params):
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups and ("param_names" in self.param_groups[0]) != (
                "param_names" in group):
            raise ValueError("all optimizer param groups should be with/without names. cannot "
                             "add param group with"
                             + ("" if "param_names" in group else "out")
                             + " names to the optimizer")
        group = Watched({"params": params, **{k: v for k, v in group.items() if k != "params"}})
        self.param_groups.append(group)
        settle([p._node for p in params])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            if set_to_none:
                for p in group["params"]:
                    p._grad = None
            else:
                for p in group["params"]:
                    if p._grad is not None:
                        p._grad = p._grad.detach()
                        p._grad.zero_()

    # -- what a subclass says about one parameter
    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of the tensors kept for each parameter."""
        return ()

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        """Fill a parameter's state before its first step; slots start as zeros."""
        for name in self.slots(group):
            state[name] = zeros_of(p)

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        """What the rule depends on besides tensors and numbers; hashable."""
        return ()

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        """Parameters that are updated in one piece have this in common: their step count."""
        return 0

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        """The numbers that the rule takes, which may change from step to step."""
        return ()

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The new parameter and the new slots, from the old and the gradient."""
        raise NotImplementedError(f"{type(self).__name__} defines neither step() nor rule()")

    # -- the step
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` returns."""
        rec = recorder()
        saved = rec.grad
        loss = None
        if closure is not None:
            rec.grad = True
            try:
                loss = closure()
            finally:
                rec.grad = saved
        rec.grad = bool(self.defaults.get("differentiable")) and saved
        try:
            for group in self.param_groups:
                self._step_group(group)
        finally:
            rec.grad = saved
        _record.flush(rec, True)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        slots = self.slots(group)
        buckets: dict[Any, list[Any]] = {}
        state = self.state
        tape = recorder().tape
        for p in group["params"]:
            g = p._grad
            if g is None:
                continue
            dtype = p._node.spec.dtype
            if slots or self._counts:
                st = state[p]
                if not st:
                    self.begin(group, p, st)
                key = (dtype, self.bucket(group, st) if tape is None
                       else tape.freely(self.bucket, group, st))
            else:
                st = None
                key = (dtype, 0)
            found = buckets.get(key)
            if found is None:
                buckets[key] = found = []
            found.append((p, g, st))
        for (dtype, bucket), items in buckets.items():
            self._update(group, slots, dtype, bucket, items)

    _counts: bool = False
    """Whether the state counts steps although it keeps no tensors."""

    def _update(self, group: dict[str, Any], slots: tuple[str, ...], dtype: DType, bucket: Any,
                items: list[Any]) -> None:
        statics = self.statics(group)
        n = len(items)
        tensors = [p for p, _, _ in items]
        tensors += [g for _, g, _ in items]
        for name in slots:
            tensors += [st[name] for _, _, st in items]
        real = float32 if dtype.itemsize < 4 else REAL.get(dtype.name, dtype)
        tape = recorder().tape
        if tape is None:
            numbers = self.numbers(group, bucket)
        else:
            numbers = tape.freely(self.numbers, group, bucket)
            effect = tape.update(self, group, [st for _, _, st in items], numbers)
        first = len(tensors)
        for value in numbers:
            tensors.append(value if isinstance(value, Tensor) else scalar(value, real))
        if tape is not None:
            for k, t in enumerate(tensors[first:]):
                tape.label(t._node, effect, k)
        key = (type(self), statics, n, len(slots))
        update = self._updates.get(key)
        if update is None:
            self._updates[key] = update = functools.partial(_apply, self.rule, statics, n,
                                                            len(slots))
        rec = recorder()
        rec.patient = True      # were the graph run in between, old values would be kept beside new
        try:
            new = macro(key, tensors, update)
        finally:
            rec.patient = False
        stale = (self._where, rec.graph.sequence, 1 << 60)
        k = 0
        for item in items:
            item[0]._replace(new[k], stale)
            k += 1
        for name in slots:
            for _, _, st in items:
                st[name]._replace(new[k], stale)
                k += 1
        if rec.graph.state.count > _record.MAX_STEPS:
            del tensors, new
            _record.flush(rec)

    # -- state
    def state_dict(self) -> dict[str, Any]:
        """The state by parameter number, and the groups with numbers for parameters."""
        for pre in self._optimizer_state_dict_pre_hooks.values():
            pre(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {(numbers[id(k)] if isinstance(k, Tensor) else k): self._pack(v)
                 for k, v in self.state.items()}
        out: dict[str, Any] = {"state": state, "param_groups": groups}
        for post in self._optimizer_state_dict_post_hooks.values():
            changed = post(self, out)
            if changed is not None:
                out = changed
        return out

    def _pack(self, state: Any) -> Any:
        """A parameter's state as it is saved: step counts become tensors, as in PyTorch."""
        if not isinstance(state, dict):
            return state
        out = dict(state)
        if isinstance(out.get("step"), (int, float)):
            import facula
            out["step"] = facula.tensor(float(out["step"]))
        return out

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned, in the order of the parameters.

        Raises ValueError when groups differ in number or size, or a tensor has not the shape that
        its parameter wants, TypeError for what is no dictionary and KeyError for one that no
        optimiser has written; nothing is loaded then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError("Expected state_dict to be dict-like, got "
                            f"{type(state_dict).__name__}")
        state_dict = dict(state_dict)
        for pre in self._optimizer_load_state_dict_pre_hooks.values():
            changed = pre(self, state_dict)
            if changed is not None:
                state_dict = changed
        for key in ("state", "param_groups"):
            if key not in state_dict:
                raise KeyError(f"the state dict of an optimiser has the keys 'state' and "
                               f"'param_groups', and this one has {list(state_dict)[:4]}")
        groups = self.param_groups
        saved = deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(g["params"]) != len(s["params"]) for g, s in zip(groups, saved)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match "
                             "the size of optimizer's group")
        by_number = dict(zip(chain.from_iterable(s["params"] for s in saved),
                             chain.from_iterable(g["params"] for g in groups)))
        new_groups: list[dict[str, Any]] = []
        for number, (group, s) in enumerate(zip(groups, saved)):
            merged = Watched({**{k: v for k, v in group.items() if k not in s}, **s})
            merged["params"] = group["params"]
            new_groups.append(merged)
            for k, key in enumerate(s["params"]):
                self._check_state(number, merged, k, state_dict["state"].get(key))
        state: defaultdict[Any, Any] = defaultdict(Watched)
        for key, value in state_dict["state"].items():
            p = by_number.get(key)
            if p is None:
                state[key] = value
            else:
                state[p] = Watched({name: _unpack(p, name, v) for name, v in value.items()}) \
                    if isinstance(value, dict) else value
        self.param_groups = new_groups
        self.state = state
        settle()
        for post in self._optimizer_load_state_dict_post_hooks.values():
            post(self)

    def _check_state(self, number: int, group: dict[str, Any], k: int, state: Any) -> None:
        """Raise ValueError unless the saved state of a group's parameter k has its shapes."""
        if not isinstance(state, dict):
            return
        p = group["params"][k]
        fresh: dict[str, Any] = {}
        self.begin(group, p, fresh)
        for name in {**fresh, **dict.fromkeys(self.slots(group))}:
            value, wanted = state.get(name), fresh.get(name)
            if not isinstance(value, Tensor) or not (isinstance(wanted, Tensor) or wanted is None):
                continue
            shape = tuple((p if wanted is None else wanted).shape)
            if tuple(value.shape) != shape:
                names = group.get("param_names")
                raise ValueError(
                    f"{type(self).__name__}.load_state_dict: the loaded {name!r} of "
                    f"{f'parameter {k}' if names is None else repr(names[k])} in group {number} "
                    f"has shape {list(value.shape)}, and the parameter, of shape "
                    f"{list(p.shape)}, wants {list(shape)}. The state belongs to another model, "
                    "or its parameters were given in another order")

    # -- hooks
    def register_step_pre_hook(self, hook: Any) -> RemovableHandle:
        """`hook(optimizer, args, kwargs)` before each step; may return both anew."""
        return _register(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Any) -> RemovableHandle:
        """`hook(optimizer, args, kwargs)` after each step."""
        return _register(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer)` before `state_dict`."""
        return _first(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer, state_dict)` after `state_dict`; may return another."""
        return _first(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Any,
                                          prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer, state_dict)` before `load_state_dict`; may return another."""
        return _first(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Any,
                                           prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer)` after `load_state_dict`."""
        return _first(self._optimizer_load_state_dict_post_hooks, hook, prepend)

    def __repr__(self) -> str:
        text = type(self).__name__ + " ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n"
            for key in sorted(group):
                if key != "params":
                    text += f"    {key}: {group[key]}\n"
        return text + ")"


Optimizer.step = _hooked(Optimizer.step)        # type: ignore[method-assign]


def _first(table: dict[int, Any], hook: Any, prepend: bool) -> RemovableHandle:
    handle = _register(table, hook)
    if prepend and isinstance(table, OrderedDict):
        table.move_to_end(handle.id, last=False)
    return handle


def _unpack(p: Tensor, name: str, value: Any) -> Any:
    """A saved value as the state of `p` holds it."""
    if not isinstance(value, Tensor):
        return value
    if name == "step":
        count = value.item()
        return int(count) if count == int(count) else count
    value = value.detach().clone()
    if p.dtype.is_floating_point and value.dtype is not p.dtype:
        value = value.to(p.dtype)
    return value


REAL: dict[str, DType] = {}


def _fill_real() -> None:
    from facula import dtypes as d
    REAL["complex64"], REAL["complex128"] = d.float32, d.float64


_fill_real()


def zeros_of(p: Tensor, value: complex = 0.0) -> Tensor:
    """A tensor of zeros like `p`, already in memory.

    A pending `zeros_like` would make the first step another program than the second.
    """
    from facula.tensor import from_array  # type: ignore[attr-defined]
    dtype = p._node.spec.dtype
    return from_array(np.full(tuple(p._node.spec.shape), value, dtype.np), copy=True)


def _apply(rule: Any, statics: tuple[Any, ...], n: int, k: int,
           *tensors: Tensor) -> tuple[Tensor, ...]:
    """Run a rule for `n` parameters with `k` slots; parameters, gradients, slots, numbers."""
    numbers = tensors[n * (2 + k):]
    rows: list[tuple[Tensor, ...]] = []
    for i in range(n):
        p, g = tensors[i], tensors[n + i]
        slots = tuple(tensors[n * (2 + s) + i] for s in range(k))
        dtype = p.dtype
        if dtype.is_complex:
            # The real and imaginary parts are two real parameters.
            parts = [[t.real, t.imag] for t in (p, g, *slots)]
            re = rule(statics, parts[0][0], parts[1][0], tuple(s[0] for s in parts[2:]), numbers)
            im = rule(statics, parts[0][1], parts[1][1], tuple(s[1] for s in parts[2:]), numbers)
            import facula
            rows.append(tuple(facula.complex(a, b) for a, b in zip(re, im)))
        elif dtype.itemsize < 4:
            # Half precision is computed in float32 and rounded once.
            wide = [t.to(float32) for t in (p, g, *slots)]
            new = rule(statics, wide[0], wide[1], tuple(wide[2:]), numbers)
            rows.append(tuple(t.to(dtype) for t in new))
        else:
            if g.dtype is not dtype:
                g = g.to(dtype)
            rows.append(tuple(rule(statics, p, g, slots, numbers)))
    return tuple(row[j] for j in range(k + 1) for row in rows)


def positive_lr(lr: Any) -> None:
    """Raise ValueError for a negative learning rate."""
    if isinstance(lr, str):
        raise TypeError(f"the learning rate must be a number, not the string {lr!r}")
    if not isinstance(lr, Tensor):
        check("learning rate", lr, 0.0 <= lr)


def fraction_betas(betas: Iterable[float]) -> None:
    """Raise ValueError for a beta outside [0, 1)."""
    for i, beta in enumerate(betas):
        check(f"beta parameter at index {i}", beta, 0.0 <= beta < 1.0)
