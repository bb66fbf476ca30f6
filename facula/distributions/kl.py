"""Kullback-Leibler divergences, by the families of both distributions.

A family's file registers those that it is part of; this one finds them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from facula.distributions.distribution import Distribution
from facula.tensor import Tensor

__all__ = ["register_kl", "kl_divergence"]

_Rule = Callable[[Any, Any], Tensor]

_RULES: dict[tuple[type, type], _Rule] = {}
_FOUND: dict[tuple[type, type], _Rule | None] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[_Rule], _Rule]:
    """A decorator: the function is KL(p || q) for p and q of these types or derived ones.

    Of several rules that apply the one for the nearest types is taken.  Raises a TypeError for
    types that are no distributions.
    """
    for what, kind in (("type_p", type_p), ("type_q", type_q)):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise TypeError(f"Expected {what} to be a Distribution subclass but got {kind}")

    def enter(rule: _Rule) -> _Rule:
        _RULES[type_p, type_q] = rule
        _FOUND.clear()
        return rule
    return enter


def _rule(p: type, q: type) -> _Rule | None:
    """The rule for the nearest types, p counting before q; a warning if q would choose another."""
    fits = [(p.__mro__.index(a), q.__mro__.index(b), a, b) for a, b in _RULES
            if issubclass(p, a) and issubclass(q, b)]
    if not fits:
        return None
    by_p = min(fits, key=lambda row: (row[0], row[1]))
    by_q = min(fits, key=lambda row: (row[1], row[0]))
    chosen, other = _RULES[by_p[2:]], _RULES[by_q[2:]]
    if chosen is not other:
        warnings.warn(f"Ambiguous kl_divergence({p.__name__}, {q.__name__}). Please "
                      f"register_kl({by_p[2].__name__}, {by_q[3].__name__})", RuntimeWarning,
                      stacklevel=3)
    return chosen


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), the mean under p of log p - log q: [*batch_shape].

    Raises a NotImplementedError where no rule is registered for the two families.
    """
    key = (type(p), type(q))
    if key in _FOUND:
        rule = _FOUND[key]
    else:
        rule = _FOUND[key] = _rule(*key)
    if rule is None:
        raise NotImplementedError(f"No KL(p || q) is implemented for p type {key[0].__name__} "
                                  f"and q type {key[1].__name__}")
    return rule(p, q)
