"""Curves as a PNG, with Pillow: what the reports of the other examples draw with."""

from __future__ import annotations

import math

COLOURS = ((214, 69, 65), (52, 108, 176), (58, 140, 62), (230, 150, 40), (128, 80, 160),
           (90, 90, 90), (0, 150, 160))


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        # Powers of ten; where there is hardly one of them, others between.
        marks = (1.0,) if high - low > 2 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
        found = [m * 10.0 ** k for k in range(math.floor(low), math.ceil(high) + 1)
                 for m in marks]
        return [x for x in found if low - 1e-9 <= math.log10(x) <= high + 1e-9]
    size = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    size *= 0.5 if (high - low) / size < 3 else 1.0
    return [k * size for k in range(math.ceil(low / size), math.floor(high / size) + 1)]


def draw(path: str, title: str, across: str, up: str,
         curves: dict[str, list[tuple[float, float]]], log: bool = False,
         size: tuple[int, int] = (900, 560)) -> None:
    """Write curves, each a list of (x, y) under its name; `log` is of the y axis."""
    from PIL import Image, ImageDraw, ImageFont

    try:
        font = ImageFont.load_default(14)
    except TypeError:                       # a Pillow that has one size
        font = ImageFont.load_default()
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = 80, 50, size[0] - 30, size[1] - 60

    def height(y: float) -> float:
        return math.log10(max(y, 1e-30)) if log else y

    points = [(x, height(y)) for c in curves.values() for x, y in c if math.isfinite(y)]
    if not points:
        raise ValueError("there is nothing to draw")
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y0, y1 = min(p[1] for p in points), max(p[1] for p in points)
    x1, y1 = max(x1, x0 + 1e-9), max(y1, y0 + 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        return (left + (x - x0) / (x1 - x0) * (right - left),
                bottom - (y - y0) / (y1 - y0) * (bottom - top))

    for tick in _ticks(y0, y1, log):
        _, y = place(x0, height(tick))
        pen.line([(left, y), (right, y)], fill=(225, 225, 225))
        pen.text((left - 8, y), f"{tick:.3g}", fill=(60, 60, 60), font=font, anchor="rm")
    for tick in _ticks(x0, x1, False):
        x, _ = place(tick, y0)
        pen.line([(x, top), (x, bottom)], fill=(225, 225, 225))
        pen.text((x, bottom + 8), f"{tick:.4g}", fill=(60, 60, 60), font=font, anchor="mt")
    pen.rectangle([left, top, right, bottom], outline=(120, 120, 120))
    pen.text((left, 12), title, fill="black", font=font)
    pen.text(((left + right) / 2, size[1] - 24), across, fill="black", font=font, anchor="mm")
    pen.text((left, top - 3), up, fill="black", font=font, anchor="ls")
    for k, curve in enumerate(curves.values()):
        line = [place(x, height(y)) for x, y in curve if math.isfinite(y)]
        if len(line) > 1:
            pen.line(line, fill=COLOURS[k % len(COLOURS)], width=2)
    pen.rectangle([right - 196, top + 6, right - 6, top + 12 + 20 * len(curves)], fill="white")
    for k, name in enumerate(curves):
        y = top + 18 + 20 * k
        pen.line([(right - 190, y), (right - 165, y)], fill=COLOURS[k % len(COLOURS)], width=3)
        pen.text((right - 158, y), name, fill="black", font=font, anchor="lm")
    image.save(path)
