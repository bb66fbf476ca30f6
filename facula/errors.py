"""The errors facula raises on purpose.

Each derives from the exception that PyTorch raises in the same place, so that a handler written
for PyTorch still catches it.  `user_frame` finds the line of the user's program to name.
"""

from __future__ import annotations

import os
import sys
from types import FrameType

__all__ = ["FaculaError", "ShapeError", "DTypeError", "BroadcastError", "StaleTensorError",
           "GradientError", "LinAlgError", "CacheError", "DataError", "AnomalyError",
           "CurvatureError", "NotFiniteError", "ClosureError", "TransformError", "VmapError",
           "WeightsError", "user_line", "with_line"]

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class FaculaError(RuntimeError):
    """Base of facula's own errors; a RuntimeError, as PyTorch's are."""


class ShapeError(FaculaError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(FaculaError, TypeError):
    """Element types an operation cannot take."""


class BroadcastError(ShapeError):
    """Operands that would broadcast where that is nearly always a mistake (losses)."""


class StaleTensorError(FaculaError):
    """A tensor that backward needs was overwritten after it was saved."""


class GradientError(FaculaError):
    """A gradient asked for where there is none, or a graph used after it was freed."""


class AnomalyError(FaculaError):
    """A NaN or an infinity that anomaly mode has found where it came about."""


class TransformError(FaculaError):
    """A function that cannot be transformed, or a value used outside of its transform."""


class VmapError(TransformError):
    """A function that cannot be mapped over a batch."""


class LinAlgError(FaculaError):
    """A matrix that an operation of linear algebra cannot take: singular, not positive, ..."""


class CacheError(FaculaError):
    """The compile cache holds something that cannot be used."""


class DataError(FaculaError, OSError):
    """A data file that is missing, truncated or not what it claims to be."""


class WeightsError(FaculaError, ValueError):
    """Trained weights of a network, which are not here: they are loaded from a file."""


class CurvatureError(FaculaError, ArithmeticError):
    """A curvature matrix that a method cannot go along: indefinite where it has to be positive."""


class NotFiniteError(FaculaError, ArithmeticError):
    """A NaN or an infinity where an optimiser needs a number."""


class ClosureError(FaculaError):
    """A closure that is not a function of the parameters, or returns something else than asked."""


def user_line(skip: int = 1) -> str | None:
    """`file:line` of the nearest caller outside facula's own code, or None.

    Walks the Python stack, so it belongs on paths that run rarely.
    """
    frame: FrameType | None = sys._getframe(skip)
    while frame is not None:
        name = frame.f_code.co_filename
        own = _own.get(name)
        if own is None:
            own = _own[name] = name.startswith((HERE, "<frozen"))
        if not own:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return None


_own: dict[str, bool] = {}
"""By the name of a file: is it facula's, or the interpreter's?"""


def with_line(text: str) -> str:
    """A message, and the line of the user's program in which it came about."""
    line = user_line(2)
    return text if line is None else f"{text} (in {line})"
