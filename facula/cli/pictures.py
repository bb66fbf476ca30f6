"""Two pictures drawn with Pillow alone: a curve, and a grid of digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["curve", "digits", "ticks", "smooth"]

_INK, _GREY, _PALE = (32, 32, 36), (110, 110, 118), (228, 228, 232)
_COLOURS = ((28, 98, 190), (206, 84, 24), (32, 138, 84))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that divide [low, high]: steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-12)
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` values at each place (of fewer at the start)."""
    total = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    mean: np.ndarray = (total[end] - total[start]) / (end - start)
    return mean


def _font(size: int) -> Any:
    from PIL import ImageFont
    return ImageFont.load_default(size)


def curve(path: str, title: str, x_label: str,
          series: Sequence[tuple[str, np.ndarray, np.ndarray]],
          *, faint: tuple[np.ndarray, np.ndarray] | None = None,
          size: tuple[int, int] = (960, 560)) -> None:
    """Draw lines (name, x, y) into a PNG file; `faint` (x, y) lies pale behind the first.

    Values that are not finite leave a gap.  The y axis starts at zero.
    """
    from PIL import Image, ImageDraw

    scale = 2                                            # drawn twice as large: smooth edges
    width, height = size[0] * scale, size[1] * scale
    left, right, top, bottom = 90 * scale, 30 * scale, 56 * scale, 64 * scale
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    xs = np.concatenate([np.asarray(x, np.float64) for _, x, _ in series])
    ys = np.concatenate([np.asarray(y, np.float64) for _, _, y in series])
    ys = ys[np.isfinite(ys)]
    x0, x1 = (float(xs.min()), float(xs.max())) if len(xs) else (0.0, 1.0)
    x1 = x1 if x1 > x0 else x0 + 1.0
    y1 = float(ys.max()) * 1.05 if len(ys) and ys.max() > 0 else 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return (left + (x - x0) / (x1 - x0) * (width - left - right),
                height - bottom - min(y / y1, 1.0) * (height - top - bottom))

    small, large = _font(13 * scale), _font(18 * scale)
    draw.text((left, 18 * scale), title, _INK, large)
    for tick in ticks(0.0, y1):
        draw.line([at(x0, tick), at(x1, tick)], _PALE, scale)
        draw.text((left - 10 * scale, at(x0, tick)[1]), f"{tick:g}", _GREY, small, anchor="rm")
    for tick in ticks(x0, x1, 10):
        draw.text((at(tick, 0.0)[0], height - bottom + 8 * scale), f"{tick:g}", _GREY, small,
                  anchor="mt")
    draw.text((left + (width - left - right) / 2, height - 18 * scale), x_label, _GREY, small,
              anchor="ms")

    def line(x: np.ndarray, y: np.ndarray, colour: Any, thick: int) -> None:
        run: list[tuple[float, float]] = []
        for a, b in [*zip(x.tolist(), y.tolist()), (0.0, math.nan)]:
            if math.isfinite(b):
                run.append(at(a, b))
                continue
            if len(run) > 1:
                draw.line(run, colour, thick, joint="curve")
            run = []

    if faint is not None:
        line(np.asarray(faint[0]), np.asarray(faint[1]), (198, 214, 238), scale)
    for k, (name, x, y) in enumerate(series):
        colour = _COLOURS[k % len(_COLOURS)]
        x, y = np.asarray(x), np.asarray(y)
        line(x, y, colour, 2 * scale)
        if len(x) <= 40:
            for a, b in zip(x.tolist(), y.tolist()):
                if math.isfinite(b):
                    u, v = at(a, b)
                    r = 4 * scale
                    draw.ellipse([u - r, v - r, u + r, v + r], colour)
        row = top + (8 + 22 * k) * scale
        end = width - right
        draw.text((end, row), name, colour, small, anchor="ra")
    draw.line([at(x0, 0.0), at(x1, 0.0)], _GREY, scale)
    image.resize(size, Image.Resampling.LANCZOS).save(path)


def digits(path: str, title: str, images: np.ndarray, captions: Sequence[str],
           *, columns: int = 10, zoom: int = 3) -> None:
    """Draw grey images of shape (n, height, width), uint8, in a grid with a caption each."""
    from PIL import Image, ImageDraw

    count = len(images)
    high, wide = (images.shape[1] * zoom, images.shape[2] * zoom) if count else (84, 84)
    gap, caption, head = 12, 20, 48
    rows = max(math.ceil(count / columns), 1)
    canvas = Image.new("RGB", (gap + columns * (wide + gap),
                               head + rows * (high + caption + gap)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((gap, 14), title, _INK, _font(18))
    small = _font(13)
    for k, (image, text) in enumerate(zip(images, captions)):
        row, column = divmod(k, columns)
        x, y = gap + column * (wide + gap), head + row * (high + caption + gap)
        picture = Image.fromarray(255 - image).resize((wide, high), Image.Resampling.NEAREST)
        canvas.paste(picture, (x, y))
        draw.rectangle([x, y, x + wide - 1, y + high - 1], outline=_PALE)
        draw.text((x + wide / 2, y + high + 3), text, _INK, small, anchor="mt")
    canvas.save(path)
