"""The base of learning-rate schedules.

A schedule sets `group["lr"]`; the rate is a runtime number of the step's program, so that a new
one compiles nothing.
"""

from __future__ import annotations

import warnings
from typing import Any

from facula.optim.optimizer import Optimizer
from facula.tensor import Tensor

__all__ = ["LRScheduler", "EPOCH_WARNING", "as_number", "set_value"]

EPOCH_WARNING = ("The epoch parameter in `scheduler.step()` was not necessary and is being "
                 "deprecated where possible. Please use `scheduler.step()` to step the "
                 "scheduler.")


def as_number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def set_value(group: dict[str, Any], key: str, value: float) -> None:
    """Put a number into a group, keeping a tensor that the user put there."""
    if isinstance(group.get(key), Tensor):
        group[key].fill_(as_number(value))
    else:
        group[key] = value


class LRScheduler:
    """Base of the schedules: `step()` after each epoch sets the rates that `get_lr()` returns.

    A subclass defines `get_lr`, from `last_epoch`, `base_lrs` and the rates as they are; and
    where there is one, `_get_closed_form_lr`, which needs only `last_epoch`.
    """

    _step_count: int = 0
    _get_lr_called_within_step: bool = False
    _is_initial: bool = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", as_number(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError("param 'initial_lr' is not specified in "
                               f"param_groups[{i}] when resuming scheduler with last_epoch >= 0.")
        self.base_lrs = [as_number(g["initial_lr"]) for g in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def _rates(self) -> list[float]:
        return [as_number(g["lr"]) for g in self.optimizer.param_groups]

    def get_lr(self) -> list[float]:
        """The rates of the groups at `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rates that the last `step()` set."""
        return self._last_lr

    def _closed_form(self) -> list[float] | None:
        found = getattr(self, "_get_closed_form_lr", None)
        return None if found is None else found()

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch (or to `epoch`) and set its rates."""
        if self._step_count == 1 and not getattr(self.optimizer, "_opt_called", False):
            warnings.warn("Detected call of `lr_scheduler.step()` before `optimizer.step()`: the "
                          "first value of the learning rate schedule is skipped. Call them in the "
                          "opposite order, `optimizer.step()` before `lr_scheduler.step()`",
                          stacklevel=2)
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_WARNING, stacklevel=2)
        self._advance(epoch)

    def _advance(self, epoch: int | None = None) -> None:
        """What `step` does, without its warnings; for schedules made of schedules."""
        values = None
        if epoch is None:
            self.last_epoch += 1
        else:
            self.last_epoch = epoch
            values = self._closed_form()
        if values is None:
            self._get_lr_called_within_step = True
            try:
                values = self.get_lr()
            finally:
                self._get_lr_called_within_step = False
        for group, lr in zip(self.optimizer.param_groups, values, strict=False):
            set_value(group, "lr", lr)
        self._last_lr = self._rates()

    def state_dict(self) -> dict[str, Any]:
        """Everything about the schedule but the optimiser."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.__dict__.update(state_dict)
