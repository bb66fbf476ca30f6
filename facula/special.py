"""Special functions, under the names of `torch.special`."""

from __future__ import annotations

from typing import Any

from facula.ops import special_functions as _functions
from facula.ops.define import OPS as _OPS
from facula.ops.special_functions import *  # noqa: F403

_ALIASES = {"digamma": "digamma", "psi": "digamma", "erf": "erf", "erfc": "erfc",
            "erfinv": "erfinv", "exp2": "exp2", "expit": "sigmoid", "expm1": "expm1",
            "gammaln": "lgamma", "gammainc": "igamma", "gammaincc": "igammac", "i0": "i0",
            "log1p": "log1p", "log_softmax": "log_softmax", "logit": "logit",
            "logsumexp": "logsumexp", "multigammaln": "mvlgamma", "polygamma": "polygamma",
            "round": "round", "sinc": "sinc", "softmax": "softmax", "xlogy": "xlogy"}
"""Names here of operations that have another one, or the same, in the top namespace."""

for _name, _other in _ALIASES.items():
    globals()[_name] = _OPS[_other].fn

__all__ = sorted({*_ALIASES, *_functions.__all__} - {"mvlgamma", "igamma", "igammac"})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'facula.special' has no attribute {name!r}")
