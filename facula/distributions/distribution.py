"""What every distribution can do, and the registry of families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from facula.autograd import no_grad
from facula.distributions import constraints
from facula.distributions.utils import holds, lazy_property
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["Distribution", "Family", "FAMILIES", "family"]


def _lacks(self: Any, what: str) -> NotImplementedError:
    return NotImplementedError(f"{type(self).__name__} has no {what}")


class Distribution:
    """Base of all distributions.

    `batch_shape` is the shape of independent, differently parametrised distributions,
    `event_shape` that of one draw from one of them.  With `validate_args` parameters are
    checked when it is made, and values when their probability is asked for; outside of
    `facula.compile` and function transforms that looks at them.
    """

    has_rsample = False
    has_enumerate_support = False
    arg_constraints: Any = {}
    _validate_args = __debug__

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions check their arguments unless told otherwise."""
        if value not in (True, False):
            raise ValueError(f"validate_args is True or False, not {value!r}")
        Distribution._validate_args = value

    def __init__(self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (),
                 validate_args: bool | None = None):
        self._batch_shape = Size(batch_shape)
        self._event_shape = Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()

    def _check_parameters(self) -> None:
        for name, constraint in self.arg_constraints.items():
            if constraints.is_dependent(constraint):
                continue
            if name not in self.__dict__ and isinstance(getattr(type(self), name, None),
                                                        lazy_property):
                continue                                     # made from one that is checked
            value = getattr(self, name)
            if isinstance(value, Tensor) and not holds(constraint.check(value)):
                raise ValueError(
                    f"Expected parameter {name} ({type(value).__name__} of shape "
                    f"{tuple(value.shape)}) of distribution {self!r} to satisfy the constraint "
                    f"{constraint!r}, but found invalid values:\n{value}")

    # ---------------------------------------------------------------- shapes

    @property
    def batch_shape(self) -> Size:
        """The shape of the parameters without what belongs to one event."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one draw."""
        return self._event_shape

    @property
    def support(self) -> Any:
        """The constraint that every draw obeys."""
        raise _lacks(self, "support")

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The same distribution with its parameters expanded to `batch_shape`."""
        new = type(self).__new__(type(self)) if _instance is None else _instance
        batch_shape = Size(batch_shape)
        for name, constraint in self.arg_constraints.items():
            value = self.__dict__.get(name)
            if isinstance(value, Tensor):
                own = value.shape[value.ndim - constraint.event_dim:]
                new.__dict__[name] = value.expand(*batch_shape, *own)
        self._expanded(new, batch_shape)
        Distribution.__init__(new, batch_shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        """Set on `new` what `expand` does not find among the parameters."""

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    # ---------------------------------------------------------------- draws

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws [*sample_shape, *batch_shape, *event_shape] through which gradients flow."""
        raise _lacks(self, "rsample")

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws [*sample_shape, *batch_shape, *event_shape], without gradient."""
        with no_grad():
            return self.rsample(sample_shape)

    def sample_n(self, n: int) -> Tensor:
        """`sample((n,))`."""
        return self.sample((n,))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every value of a discrete distribution, [n, *batch_shape, *event_shape].

        With `expand=False` the dimensions of the batch are 1.
        """
        raise _lacks(self, "enumerable support")

    def _enumerated(self, values: Tensor, expand: bool) -> Tensor:
        values = values.reshape(-1, *(1,) * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values

    # ---------------------------------------------------------------- what is known of them

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density or the probability at `value`."""
        raise _lacks(self, "log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of values up to `value`."""
        raise _lacks(self, "cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        raise _lacks(self, "icdf")

    def entropy(self) -> Tensor:
        """The entropy in nats, [*batch_shape]."""
        raise _lacks(self, "entropy")

    def perplexity(self) -> Tensor:
        """e to the entropy."""
        return self.entropy().exp()

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise _lacks(self, "mean")

    @property
    def mode(self) -> Tensor:
        """A value of greatest density or probability."""
        raise _lacks(self, "mode")

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise _lacks(self, "variance")

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def _check(self, value: Any) -> None:
        if self._validate_args:
            self._validate_sample(value)

    def _validate_sample(self, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor, not a "
                             f"{type(value).__name__}")
        given = value.shape
        own = self._event_shape
        start = len(given) - len(own)
        if start < 0 or given[start:] != own:
            raise ValueError(f"The right-most size of value must match event_shape: {given} vs "
                             f"{own}.")
        for a, b in zip(reversed(given), reversed((*self._batch_shape, *own))):
            if a != 1 and b != 1 and a != b:
                raise ValueError("Value is not broadcastable with batch_shape+event_shape: "
                                 f"{given} vs {self._batch_shape + own}.")
        try:
            support = self.support
        except NotImplementedError:
            return
        if not holds(support.check(value)):
            raise ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(given)}) to be "
                f"within the support ({support!r}) of the distribution {self!r}, but found "
                f"invalid values:\n{value}")

    def __repr__(self) -> str:
        shown = []
        for name in self.arg_constraints:
            if isinstance(getattr(type(self), name, None), lazy_property):
                value = self.__dict__.get(name)
            else:
                value = getattr(self, name)
            if isinstance(value, Tensor):
                shown.append(f"{name}: {value if value.numel() == 1 else value.size()}")
        return f"{type(self).__name__}({', '.join(shown)})"


# ---------------------------------------------------------------- the registry

@dataclass(frozen=True)
class Family:
    """A family of distributions and parameters that it can have.

    `samples` are keyword arguments of the class.  Lists in them stand for tensors and
    numbers for themselves; a function makes what is neither (another distribution, say) from
    the module of distributions and the function that makes tensors.
    """

    name: str
    cls: type[Distribution]
    samples: tuple[dict[str, Any], ...]

    def arguments(self, module: Any, tensor: Callable[[Any], Any]) -> list[dict[str, Any]]:
        """The samples as arguments for a class of that name in `module`."""
        def made(value: Any) -> Any:
            if isinstance(value, list):
                return tensor(value)
            return value(module, tensor) if callable(value) else value
        return [{k: made(v) for k, v in sample.items()} for sample in self.samples]


FAMILIES: dict[str, Family] = {}
"""Every family by its name; tests and the reference are made from it."""

_C = TypeVar("_C", bound=type)


def family(*samples: dict[str, Any]) -> Callable[[_C], _C]:
    """Enter a class into `FAMILIES`, and into the names of `facula.distributions`."""
    def enter(cls: _C) -> _C:
        FAMILIES[cls.__name__] = Family(cls.__name__, cls, samples)
        return cls
    return enter
