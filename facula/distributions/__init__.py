"""Probability distributions, under the names of `torch.distributions`.

    prior = facula.distributions.Normal(0.0, 1.0)
    posterior = Normal(mean, scale)
    z = posterior.rsample()                       # gradients reach mean and scale
    loss = -likelihood(z) + kl_divergence(posterior, prior).sum()

A family is a file in this folder with a class that `family` registers; every module here is
loaded and every family exported.
"""

from __future__ import annotations

import importlib as _importlib
import os as _os
import pkgutil as _pkgutil

from facula.distributions import constraints, transforms
from facula.distributions.constraint_registry import biject_to, transform_to
from facula.distributions.distribution import FAMILIES as _FAMILIES
from facula.distributions.distribution import Distribution
from facula.distributions.exp_family import ExponentialFamily
from facula.distributions.kl import kl_divergence, register_kl

for _name in transforms.__all__:
    globals()[_name] = getattr(transforms, _name)
_ROOT = [_os.path.dirname(__file__)]
for _module in sorted(m.name for m in _pkgutil.iter_modules(_ROOT)):
    _importlib.import_module(f"{__name__}.{_module}")
for _name, _family in _FAMILIES.items():
    globals()[_name] = _family.cls

__all__ = sorted([*_FAMILIES, *transforms.__all__, "Distribution", "ExponentialFamily",
                  "biject_to", "constraints", "kl_divergence", "register_kl",
                  "transform_to", "transforms"])
