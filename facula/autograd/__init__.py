"""Automatic differentiation: `backward`, `grad`, `Function` and the gradient modes."""

import importlib as _importlib
from typing import Any

from facula.autograd import methods as _methods
from facula.autograd.anomaly import (
    AnomalyError,
    detect_anomaly,
    is_anomaly_check_nan_enabled,
    is_anomaly_enabled,
    set_detect_anomaly,
)
from facula.autograd.backward import backward, grad
from facula.autograd.function import Function, FunctionCtx, once_differentiable
from facula.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from facula.autograd.mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from facula.autograd.variable import Variable

_LAZY = ("forward_ad", "functional", "graph", "profiler")

__all__ = ["backward", "grad", "Function", "FunctionCtx", "once_differentiable", "enable_grad",
           "gradcheck", "gradgradcheck", "GradcheckError",
           "AnomalyError", "detect_anomaly", "set_detect_anomaly", "is_anomaly_enabled",
           "is_anomaly_check_nan_enabled", "inference_mode", "is_grad_enabled",
           "is_inference_mode_enabled", "no_grad", "set_grad_enabled", "Variable"]

del _methods


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'facula.autograd' has no attribute {name!r}")
    found = _importlib.import_module(f"facula.autograd.{name}")
    globals()[name] = found
    return found
