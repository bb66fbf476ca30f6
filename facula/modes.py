"""Settings of PyTorch's that programs make at their top: devices, determinism, precision.

facula computes on the CPU, deterministically and in full precision; these functions accept what
asks for that, and say so about what asks for something else.
"""

from __future__ import annotations

from typing import Any

from facula.device import CPU, check_device
from facula.device import device as Device
from facula.ops.promote import set_default_dtype

__all__ = ["get_default_device", "set_default_device", "set_default_tensor_type",
           "use_deterministic_algorithms", "are_deterministic_algorithms_enabled",
           "is_deterministic_algorithms_warn_only_enabled", "set_deterministic_debug_mode",
           "get_deterministic_debug_mode", "get_float32_matmul_precision",
           "set_float32_matmul_precision", "get_num_interop_threads", "set_num_interop_threads"]


def get_default_device() -> Device:
    """Where tensors are made: the CPU."""
    return CPU


def set_default_device(device: Any) -> None:
    """Accepts the CPU; RuntimeError for any other device."""
    check_device(device)


def set_default_tensor_type(t: Any) -> None:
    """`set_default_dtype` by the name of a legacy class, such as facula.DoubleTensor."""
    if isinstance(t, str):
        from facula.ops.older import legacy
        found = legacy(t.rpartition(".")[2])
        if found is None:
            raise TypeError(f"invalid type object: {t!r}")
        t = found
    set_default_dtype(t.dtype)


_warn_only = False


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """facula always computes the same from the same input, so either mode is kept to."""
    global _warn_only
    _warn_only = bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """True: results do not depend on threads or timing."""
    return True


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What `use_deterministic_algorithms` was last told."""
    return _warn_only


def set_deterministic_debug_mode(debug_mode: Any) -> None:
    """As `use_deterministic_algorithms`: any mode is kept to."""
    if debug_mode not in (0, 1, 2, "default", "warn", "error"):
        raise RuntimeError("invalid value of debug_mode, expected one of `default`, `warn`, "
                           f"`error`, 0, 1, 2, but got {debug_mode}")


def get_deterministic_debug_mode() -> int:
    """2, PyTorch's number for 'always deterministic'."""
    return 2


_precision = "highest"


def get_float32_matmul_precision() -> str:
    """What was set last; products of float32 are computed in float32 all the same."""
    return _precision


def set_float32_matmul_precision(precision: str) -> None:
    """'highest', 'high' or 'medium': the latter two allow less precision, which is not used."""
    global _precision
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"{precision} is not one of 'highest', 'high', 'medium'")
    _precision = precision


def get_num_interop_threads() -> int:
    """1: programs run one after another, each on `get_num_threads()` threads."""
    return 1


def set_num_interop_threads(n: int) -> None:
    """Accepted and without effect, for positive numbers."""
    if n <= 0:
        raise RuntimeError("set_num_interop_threads expects a positive integer")
