"""What the conjugate gradients of `facula.optim.HessianFree` can be preconditioned with.

A preconditioner is its settings and nothing else, so that one of them may be given to several
optimisers: each of them asks it for one of its own (`begin`), and that one for M in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from facula.curvature.cg import Preconditioner
from facula.curvature.kronecker import LIKELIHOODS, KroneckerFactors, Turned
from facula.curvature.linear import Layout
from facula.curvature.matrices import empirical_fisher_diagonal
from facula.graph import record as _record
from facula.graph.record import recorder
from facula.tensor import Tensor

__all__ = ["FisherDiagonal", "Kronecker", "Preconditioning", "Problem", "preconditioning"]

Closure = Callable[[], Any]
Begun = Callable[[Closure, float], Tensor | Preconditioner]
"""What makes M of a closure and lambda: its diagonal `[n]`, or what multiplies by its inverse."""


@dataclass(frozen=True)
class Problem:
    """What a preconditioner is told of what is minimised.

    given   what the optimiser was made for: a module, or its parameters
    params  the parameters, and `layout` how they are one vector
    owner   the optimiser, whose state by parameter is kept in its state dict
    """

    given: Any
    params: list[Tensor]
    layout: Layout
    owner: Any

    @property
    def state(self) -> Any:
        """What the optimiser remembers besides what belongs to a parameter."""
        return self.owner.state[self.params[0]]

    def setting(self, name: str) -> Any:
        """A setting of the optimiser's."""
        return self.owner.param_groups[0][name]


class Preconditioning(Protocol):
    """A way to precondition; `FisherDiagonal` and `Kronecker` are two."""

    def begin(self, problem: Problem) -> Begun:
        """The preconditioner of one optimiser."""


@dataclass(frozen=True)
class FisherDiagonal:
    """For `optim.HessianFree`: M = (diag F + lambda)**exponent in place of the matrix, F being the
    empirical Fisher matrix (Martens 2010, section 4.7).

    exponent  how much of the diagonal counts: 0 is none of it
    probes    how many backward passes the diagonal is estimated from; see
              `curvature.empirical_fisher_diagonal`

    Raises ValueError for fewer than one probe.
    """

    exponent: float = 0.75
    probes: int = 4

    def __post_init__(self) -> None:
        if not self.probes >= 1:
            raise ValueError(f"Invalid probes: {self.probes}")

    def begin(self, problem: Problem) -> Begun:
        return _Diagonal(self, problem)


class _Diagonal:
    def __init__(self, settings: FisherDiagonal, problem: Problem) -> None:
        self.settings, self.problem = settings, problem

    def __call__(self, closure: Closure, damping: float) -> Tensor:
        problem = self.problem
        diagonal: Any = empirical_fisher_diagonal(
            closure, problem.params, self.settings.probes, problem.setting("reduction"),
            problem.setting("batch_dim"))
        diagonal = (diagonal + damping + 1e-12) ** self.settings.exponent
        _record.flush(recorder())
        return diagonal                                     # type: ignore[no-any-return]


@dataclass(frozen=True)
class Kronecker:
    """For `optim.HessianFree` on a module: M = the Kronecker factors of K-FAC for each `Linear` and
    `Conv2d` layer, with lambda shared between the two factors (Martens and Grosse 2015, section
    6.3), and lambda for other parameters.  Dearer than a diagonal, and it takes a small part of the
    iterations.

    likelihood  from which targets the gradients of the factors come; None: those of the loss; or
                drawn from the model, as in `FisherOperator`
    averaging   how much of the factors' averages stays in a step
    every       how many steps their inverses serve

    Raises ValueError for settings that mean nothing.  The optimiser has to be given the module
    itself, since its layers are watched: TypeError otherwise.
    """

    likelihood: str | None = None
    averaging: float = 0.95
    every: int = 10

    def __post_init__(self) -> None:
        for name, right in (
                ("likelihood", self.likelihood is None or self.likelihood in LIKELIHOODS),
                ("averaging", 0.0 <= self.averaging < 1.0), ("every", self.every >= 1)):
            if not right:
                raise ValueError(f"Invalid {name}: {getattr(self, name)}")

    def begin(self, problem: Problem) -> Begun:
        return _Factors(self, problem)


class _Factors:
    def __init__(self, settings: Kronecker, problem: Problem) -> None:
        self.settings, self.problem = settings, problem
        self.who = type(problem.owner).__name__
        if not hasattr(problem.given, "named_parameters"):
            raise TypeError(f"{self.who} with Kronecker factors takes the module itself, not "
                            f"{type(problem.given).__name__}: it has to watch its layers")
        self.factors = KroneckerFactors(problem.given, problem.owner,
                                        problem.setting("reduction"), settings.likelihood)

    def __call__(self, closure: Closure, damping: float) -> Preconditioner:
        problem, state = self.problem, self.problem.state
        count, seen = state.get("n_iter", 0), state.get("observed", 0)
        # an average of all there was, until there is more than it is to remember
        self.factors.observe(closure, min(1 - 1 / (seen + 1), self.settings.averaging), self.who)
        state["observed"] = seen + 1
        damping = max(damping, 1e-12)
        if count < 3 or count % self.settings.every == 0:
            self.factors.invert(damping)
        return Turned(self.factors, problem.params, problem.layout, damping)


_NAMES: dict[str, Callable[[], Preconditioning]] = {
    "fisher": FisherDiagonal, "kronecker": Kronecker}


def preconditioning(given: Any) -> Preconditioning | None:
    """A preconditioner, or the one of a name; None for none.

    Raises ValueError for a name that there is not, TypeError for anything else.
    """
    if isinstance(given, str):
        if given not in _NAMES:
            raise ValueError(f"Invalid preconditioner: {given!r}; known by name are "
                             f"{' and '.join(map(repr, _NAMES))}")
        return _NAMES[given]()
    if given is not None and (isinstance(given, type) or not hasattr(given, "begin")):
        what = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        raise TypeError(f"a preconditioner is a name, None, or an object such as "
                        f"facula.curvature.Kronecker(), not {what}")
    return given                                            # type: ignore[no-any-return]
