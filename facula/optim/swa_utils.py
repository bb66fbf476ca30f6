"""Averages of a model's weights over training: equal (SWA) and exponential (EMA)."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any

from facula.autograd.mode import no_grad
from facula.nn.modules.batchnorm import _BatchNorm
from facula.nn.modules.module import Module
from facula.optim.lr_scheduler.base import LRScheduler
from facula.optim.lr_scheduler.cycles import per_group
from facula.optim.optimizer import Optimizer
from facula.tensor import Tensor

__all__ = ["AveragedModel", "update_bn", "SWALR", "get_ema_multi_avg_fn", "get_swa_multi_avg_fn",
           "get_ema_avg_fn", "get_swa_avg_fn"]


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] "
                         "range.")


def _exact(t: Tensor) -> bool:
    return t.dtype.kind not in "fc"


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[..., None]:
    """`f(averages, values, count)`: average = decay * average + (1 - decay) * value, in place.

    Raises ValueError for a decay outside [0, 1].
    """
    _check_decay(decay)

    @no_grad()
    def ema_update(averages: Any, values: Any, _: Any) -> None:
        for a, v in zip(averages, values, strict=True):
            if _exact(a):
                a.copy_(a * decay + v * (1 - decay))
            else:
                a.lerp_(v, 1 - decay)

    return ema_update                                       # type: ignore[no-any-return]


def get_swa_multi_avg_fn() -> Callable[..., None]:
    """`f(averages, values, count)`: average += (value - average) / (count + 1), in place."""
    @no_grad()
    def swa_update(averages: Any, values: Any, count: Any) -> None:
        for a, v in zip(averages, values, strict=True):
            part = (v - a) / (count + 1)
            a.add_(part.to(a.dtype))

    return swa_update                                       # type: ignore[no-any-return]


def get_ema_avg_fn(decay: float = 0.999) -> Callable[..., Tensor]:
    """`f(average, value, count)` gives decay * average + (1 - decay) * value.

    Raises ValueError for a decay outside [0, 1].
    """
    _check_decay(decay)

    @no_grad()
    def ema_update(average: Any, value: Any, count: Any) -> Any:
        return decay * average + (1 - decay) * value

    return ema_update                                       # type: ignore[no-any-return]


def get_swa_avg_fn() -> Callable[..., Tensor]:
    """`f(average, value, count)` gives average + (value - average) / (count + 1)."""
    @no_grad()
    def swa_update(average: Any, value: Any, count: Any) -> Any:
        return average + (value - average) / (count + 1)

    return swa_update                                       # type: ignore[no-any-return]


class AveragedModel(Module):
    """A copy of a model whose parameters are the average of what the model's have been.

    `update_parameters(model)` takes one more value into the average: the first is copied, later
    ones go through `avg_fn(average, value, count)`, which returns the new average, or
    `multi_avg_fn(averages, values, count)`, which overwrites the averages of one dtype; the
    default is the equally weighted average of SWA (Izmailov et al. 2018, arXiv:1803.05407).
    Buffers are copied, or averaged with `use_buffers`.  `n_averaged` counts the updates.

    Raises AssertionError if both functions are given.
    """

    n_averaged: Tensor

    def __init__(self, model: Module, device: Any = None,
                 avg_fn: Callable[..., Any] | None = None,
                 multi_avg_fn: Callable[..., Any] | None = None,
                 use_buffers: bool = False) -> None:
        import facula
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", facula.tensor(0, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers
        # Whether `n_averaged` is 0 without asking for its value, which would end the pending
        # graph: the node that it stood on when that was known to be false.
        self._begun: list[Any] = [None]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model makes of the arguments."""
        return self.module(*args, **kwargs)

    def _first(self) -> bool:
        known = self._begun[0]
        return (known is None or known() is not self.n_averaged._node) \
            and int(self.n_averaged.item()) == 0            # type: ignore[attr-defined]

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the parameters of `model` into the average."""
        pairs: Any
        if self.use_buffers:
            pairs = zip(chain(self.module.parameters(), self.module.buffers()),
                        chain(model.parameters(), model.buffers()), strict=False)
        else:
            pairs = zip(self.module.parameters(), model.parameters(), strict=False)
        pairs = [(a.detach(), v.detach()) for a, v in pairs]
        if self._first():
            for a, v in pairs:
                a.copy_(v)
        elif self.avg_fn is not None:
            for a, v in pairs:
                a.copy_(self.avg_fn(a, v, self.n_averaged))
        else:
            kinds: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
            for a, v in pairs:
                averages, values = kinds.setdefault(a.dtype, ([], []))
                averages.append(a)
                values.append(v)
            update = self.multi_avg_fn or get_swa_multi_avg_fn()
            for averages, values in kinds.values():
                update(averages, values, self.n_averaged)
        if not self.use_buffers:
            for a, v in zip(self.module.buffers(), model.buffers(), strict=True):
                a.detach().copy_(v.detach())
        self.n_averaged.add_(1)                             # type: ignore[attr-defined]
        self._begun[0] = weakref.ref(self.n_averaged._node)


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Set the running statistics of the model's batch norms to those of one pass over `loader`.

    A batch is a tensor, or a list or tuple whose first element goes through the model.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    training = model.training
    for m in norms:
        m.reset_running_stats()
        m.momentum = None                   # a cumulative average: every batch counts the same
    model.train()
    for batch in loader:
        if isinstance(batch, (list, tuple)):
            batch = batch[0]
        if device is not None:
            batch = batch.to(device)
        model(batch)
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.train(training)


class SWALR(LRScheduler):
    """Goes from the rate as it is to `swa_lr` in `anneal_epochs` epochs, and stays there.

    `anneal_strategy` is 'cos' or 'linear'; `swa_lr` one rate or one for each group.  Raises
    ValueError for another strategy or a number of epochs below zero.
    """

    def __init__(self, optimizer: Optimizer, swa_lr: Any, anneal_epochs: int = 10,
                 anneal_strategy: str = "cos", last_epoch: int = -1) -> None:
        rates = per_group("swa_lr", optimizer, swa_lr)
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError("anneal_strategy must be one of 'cos' or 'linear', instead got "
                             f"{anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError("anneal_epochs must be equal or greater than 0, got "
                             f"{anneal_epochs}")
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _part(self, step: int) -> float:
        """How much of the way has been gone after `step` epochs."""
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * t)) / 2 if self._anneal_strategy == "cos" else t

    def get_lr(self) -> list[float]:
        """The rates: found from the last ones, so that others may change them in between."""
        if not self._get_lr_called_within_step:
            warnings.warn("To get the last learning rate computed by the scheduler, please use "
                          "`get_last_lr()`.", UserWarning, stacklevel=2)
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._part(step - 1), self._part(step)
        rates = []
        for group, lr in zip(self.optimizer.param_groups, self._rates(), strict=True):
            goal = group["swa_lr"]
            start = goal if before == 1 else (lr - before * goal) / (1 - before)
            rates.append(goal * now + start * (1 - now))
        return rates
