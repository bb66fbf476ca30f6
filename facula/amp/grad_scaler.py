"""GradScaler: a loss times a number that keeps float16 gradients off zero.

The scale is a number of Python's, and a runtime scalar of the graph: nothing is compiled anew when
it changes.  Whether a gradient has overflowed is one value, asked for once in a step.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from typing import Any

import numpy as np

from facula.dtype import float16, float32
from facula.graph.record import recorder
from facula.ops.define import macro
from facula.tensor import Tensor, make, scalar

__all__ = ["GradScaler", "OptState"]


class OptState(Enum):
    """What has been done to an optimiser's gradients since the last `update`."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


def _single(value: float) -> float:
    """Rounded to float32, which PyTorch keeps the scale in."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


class _Of:
    """One optimiser since the last update: its stage, and whether an overflow was found."""

    def __init__(self) -> None:
        self.stage = OptState.READY
        self.found: Tensor | bool | None = None

    def overflowed(self) -> bool:
        if isinstance(self.found, Tensor):
            self.found = bool(self.found.item())            # type: ignore[attr-defined]
        return bool(self.found)


class GradScaler:
    """Scales losses up and gradients down, and skips the steps that have overflowed.

    In each step: `scaler.scale(loss).backward()`, perhaps `scaler.unscale_(optimizer)` and
    clipping, `scaler.step(optimizer)`, `scaler.update()`.  After a step with an infinity or NaN in
    a gradient, which is left out, the scale shrinks by `backoff_factor`; after `growth_interval`
    steps without one it grows by `growth_factor`.  `device` other than 'cpu' disables it with a
    warning, as PyTorch does where there is no such device.

    Raises AssertionError for factors that do not grow and shrink.
    """

    def __init__(self, device: str = "cpu", init_scale: float = 2.0 ** 16,
                 growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True) -> None:
        self._device = device
        self._enabled = bool(enabled)
        if self._enabled and device != "cpu":
            warnings.warn(f"GradScaler is enabled for '{device}', but it is not available.  "
                          "Disabling.", stacklevel=2)
            self._enabled = False
        if not self._enabled:
            return
        if not growth_factor > 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if not backoff_factor < 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._init_scale = init_scale
        self._scale: float | None = None
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._init_growth_tracker = 0
        self._growth_tracker = 0
        self._per_optimizer: defaultdict[int, _Of] = defaultdict(_Of)

    def _known(self, name: str) -> float:
        if self._scale is None:
            raise AssertionError(f"Attempted {name} but _scale is None.  This may indicate your "
                                 "script did not use scaler.scale(loss or outputs) earlier in the "
                                 "iteration.")
        return self._scale

    def scale(self, outputs: Any) -> Any:
        """A tensor, or an iterable of them, times the scale.  Raises ValueError for others."""
        if not self._enabled:
            return outputs
        if self._scale is None:
            self._scale = _single(self._init_scale)
            self._growth_tracker = self._init_growth_tracker
        if isinstance(outputs, Tensor):
            return outputs * self._scale                    # type: ignore[operator]
        if isinstance(outputs, Iterable):
            scaled = [self.scale(v) for v in outputs]
            if hasattr(outputs, "_fields"):
                return type(outputs)(*scaled)               # type: ignore[call-arg]
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else iter(scaled)
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def unscale_(self, optimizer: Any) -> None:
        """Divide the optimiser's gradients by the scale, in place, and look for overflows.

        Raises RuntimeError when that has been done since the last update, ValueError for float16
        gradients.
        """
        if not self._enabled:
            return
        scale = self._known("unscale_")
        of = self._per_optimizer[id(optimizer)]
        if of.stage is OptState.UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the "
                               "last update().")
        if of.stage is OptState.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        grads = [p._grad for group in optimizer.param_groups for p in group["params"]
                 if p._grad is not None]
        if any(g.dtype is float16 for g in grads):
            raise ValueError("Attempting to unscale FP16 gradients.")
        if grads:
            of.found = _unscale(grads, _single(1.0 / scale))
        of.stage = OptState.UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step(*args, **kwargs)` on unscaled gradients, unless one has overflowed.

        Returns what the optimiser's step returns, or None.  Raises RuntimeError for a closure or
        a second step before `update`, AssertionError if there is no gradient.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._known("step")
        of = self._per_optimizer[id(optimizer)]
        if of.stage is OptState.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if of.stage is OptState.READY:
            self.unscale_(optimizer)
        if of.found is None:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        result = None if of.overflowed() else optimizer.step(*args, **kwargs)
        of.stage = OptState.STEPPED
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Choose the next step's scale, or take `new_scale`."""
        if not self._enabled:
            return
        scale = self._known("update")
        if new_scale is not None:
            self._scale = _single(float(new_scale))         # type: ignore[arg-type]
        else:
            checked = [of for of in self._per_optimizer.values() if of.found is not None]
            if not checked:
                raise AssertionError("No inf checks were recorded prior to update.")
            if any([of.overflowed() for of in checked]):
                self._scale = _single(scale * self._backoff_factor)
                self._growth_tracker = 0
            elif self._growth_tracker + 1 == self._growth_interval:
                grown = _single(scale * self._growth_factor)
                if math.isfinite(grown):
                    self._scale = grown
                self._growth_tracker = 0
            else:
                self._growth_tracker += 1
        self._per_optimizer.clear()

    # -- what it is set to
    def get_scale(self) -> float:
        """The scale; 1.0 when disabled."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else self._scale

    def get_growth_factor(self) -> float:
        """What the scale grows by."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set what the scale grows by."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the scale shrinks by."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set what the scale shrinks by."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many steps without an overflow the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many steps the scale grows."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The scale, the factors and the count of good steps; empty when disabled."""
        if not self._enabled:
            return {}
        return {"scale": self.get_scale(), "growth_factor": self._growth_factor,
                "backoff_factor": self._backoff_factor, "growth_interval": self._growth_interval,
                "_growth_tracker": self._growth_tracker if self._scale is not None
                else self._init_growth_tracker}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.  Raises RuntimeError for a disabled one's."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("The source state dict is empty, possibly because it was saved "
                               "from a disabled instance of GradScaler.")
        self._init_scale = state_dict["scale"]
        if self._scale is not None:
            self._scale = _single(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        self._growth_tracker = state_dict["_growth_tracker"]


def _divided(*tensors: Any) -> list[Any]:
    """The gradients times the last of the tensors, then whether one of them is not finite."""
    import facula
    *grads, factor = tensors
    bad = [g.isfinite().all().logical_not() for g in grads]
    found = facula.stack(bad).any()
    return [*[(g * factor).to(g.dtype) for g in grads], found]


def _unscale(grads: list[Any], inverse: float) -> Tensor:
    rec = recorder()
    grad, rec.grad = rec.grad, False
    try:
        factor = scalar(inverse, float32)
        *new, found = macro(("unscale", len(grads)), [*grads, factor], _divided)
        stale = ("GradScaler.unscale_()", rec.graph.sequence, 1 << 60)
        for g, value in zip(grads, new, strict=True):
            g._replace(value, stale)
    finally:
        rec.grad = grad
    return make(found)
