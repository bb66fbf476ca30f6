"""How tensors print: as PyTorch's do, digit by digit.

One format serves all elements shown: integers without digits, floats with `precision` digits,
in scientific notation when their sizes differ by more than a thousand or are extreme.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from facula.dtype import bfloat16, bool_, int64
from facula.errors import VmapError
from facula.graph.record import _local
from facula.ops.promote import get_default_dtype
from facula.tensor import Tensor

__all__ = ["set_printoptions", "get_printoptions", "printoptions"]


class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_options = _Options()

_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80}}


def set_printoptions(precision: int | None = None, threshold: float | None = None,
                     edgeitems: int | None = None, linewidth: int | None = None,
                     profile: str | None = None, sci_mode: bool | None = None) -> None:
    """How tensors print.

    precision  digits after the point (4)
    threshold  how many elements are shown before only the edges are (1000)
    edgeitems  how many elements are shown at each edge (3)
    linewidth  characters of a line (80)
    profile    'default', 'short' or 'full', whose values the others override
    sci_mode   scientific notation always, never, or as the values need it (None)
    """
    chosen = dict(_PROFILES.get(profile, {})) if profile is not None else {}
    for name, value in (("precision", precision), ("threshold", threshold),
                        ("edgeitems", edgeitems), ("linewidth", linewidth)):
        if value is not None:
            chosen[name] = value
    for name, value in chosen.items():
        setattr(_options, name, value)
    _options.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """The options in force, as `set_printoptions` takes them."""
    return {name: getattr(_options, name)
            for name in ("precision", "threshold", "edgeitems", "linewidth", "sci_mode")}


@contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """`set_printoptions` for a `with` block."""
    before = get_printoptions()
    set_printoptions(**options)
    try:
        yield
    finally:
        set_printoptions(**before)


class _Format:
    """The common format of the elements of one array."""

    def __init__(self, shown: np.ndarray, floating: bool):
        self.floating = floating
        self.scientific = False
        self.whole = True                      # all are integers: a point and no digits
        self.width = 1
        values = shown.reshape(-1)
        if not floating:
            self.width = max((len(str(v)) for v in values.tolist()), default=1)
            return
        values = values[np.isfinite(values) & (values != 0)]
        if not values.size:
            return
        sizes = np.abs(values.astype(np.float64))
        least, most = float(sizes.min()), float(sizes.max())
        self.whole = bool((values == np.ceil(values)).all())
        if _options.sci_mode is None:
            self.scientific = most / least > 1000.0 or most > 1.0e8 or least < 1.0e-4
        else:
            self.scientific = bool(_options.sci_mode)
        self.width = max(len(self._text(v)) for v in values.tolist())

    def _text(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{_options.precision}e}"
        if self.whole:
            return f"{value:.0f}" + ("." if math.isfinite(value) else "")
        return f"{value:.{_options.precision}f}"

    def __call__(self, value: Any) -> str:
        return self._text(value).rjust(self.width)


class _ComplexFormat:
    """Real and imaginary parts, each in a format of its own."""

    def __init__(self, shown: np.ndarray):
        self.real = _Format(shown.real, True)
        self.imag = _Format(shown.imag, True)
        self.width = self.real.width + self.imag.width + 1

    def __call__(self, value: complex) -> str:
        imag = self.imag(value.imag).lstrip() + "j"
        return self.real(value.real) + ("" if imag[0] in "+-" else "+") + imag


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements that a summary shows."""
    n = _options.edgeitems
    for axis in range(array.ndim):
        size = array.shape[axis]
        if size > 2 * n:
            keep = np.r_[0:n, size - n:size]
            array = array.take(keep, axis)
    return array


def _row(array: np.ndarray, indent: int, summary: bool, fmt: Any) -> str:
    n = _options.edgeitems
    if summary and not n:
        cells = ["..."]
    elif summary and array.shape[0] > 2 * n:
        cells = ([fmt(v) for v in array[:n].tolist()] + [" ..."]
                 + [fmt(v) for v in array[-n:].tolist()])
    else:
        cells = [fmt(v) for v in array.tolist()]
    each = max(1, (_options.linewidth - indent) // (fmt.width + 2))
    lines = [", ".join(cells[i:i + each]) for i in range(0, len(cells), each)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _block(array: np.ndarray, indent: int, summary: bool, fmt: Any) -> str:
    if array.ndim == 0:
        return str(fmt(array.item()))
    if array.ndim == 1:
        return _row(array, indent, summary, fmt)
    n, size = _options.edgeitems, array.shape[0]
    if summary and size > 2 * n:
        rows = [*range(n), None, *range(size - n, size)]
    else:
        rows = [*range(size)]
    parts = ["..." if i is None else _block(array[i], indent + 1, summary, fmt) for i in rows]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _contents(array: np.ndarray, indent: int) -> str:
    summary = array.size > _options.threshold
    shown = _edges(array) if summary else array
    kind = array.dtype.kind
    fmt = _ComplexFormat(shown) if kind == "c" else _Format(shown, kind == "f")
    return _block(array, indent, summary, fmt)


def _repr(self: Tensor, *, tensor_contents: str | None = None) -> str:
    """'tensor([1., 2.])', with dtype, grad_fn and requires_grad where they are not the usual."""
    kind: Any = type(self)
    prefix = "tensor(" if kind is Tensor or kind.__name__ == "Parameter" else f"{kind.__name__}("
    indent = len(prefix)
    suffixes = []
    dtype, default = self.dtype, get_default_dtype()
    if self.numel() == 0:
        text = "[]"
        if self.ndim != 1:
            suffixes.append(f"size={tuple(self.shape)}")
        if dtype is not default:
            suffixes.append(f"dtype={dtype!r}")
    elif _local.rec.whole and (unknown := _unknown(self)):
        return prefix + unknown
    else:
        array = self._peek()
        if dtype is bfloat16 or dtype.is_compact:
            array = array.astype(np.float32)
        if not _options.edgeitems:
            suffixes.append(f"size={tuple(self.shape)}")
        if dtype not in (default, default.to_complex(), int64, bool_):
            suffixes.append(f"dtype={dtype!r}")
        text = _contents(array, indent)
    if tensor_contents is not None:
        text = tensor_contents
    origin = self.grad_fn                                    # type: ignore[attr-defined]
    if origin is not None:
        suffixes.append(f"grad_fn=<{origin.name()}>")
    elif self.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + text, suffixes, indent)


def _unknown(t: Tensor) -> str | None:
    """What is shown of a tensor that differs from example to example of a mapped function."""
    try:
        t._peek()
    except VmapError:
        return f"..., size={tuple(t.shape)}, dtype={t.dtype!r}, one of a batch)"
    return None


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    parts = [text]
    column = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if column + len(suffix) + 2 > _options.linewidth:
            parts.append(",\n" + " " * indent + suffix)
            column = indent + len(suffix)
        else:
            parts.append(", " + suffix)
            column += len(suffix) + 2
    return "".join(parts) + ")"


Tensor.__repr__ = _repr                                      # type: ignore
Tensor.__str__ = lambda self: _repr(self)                    # type: ignore
