"""A picture of a graph: boxes and arrows as text, SVG and HTML, with nothing needed to see it."""

from __future__ import annotations

import html as _html
import os
from dataclasses import dataclass, field

from facula.viz.layout import GAP_X, GAP_Y, place

__all__ = ["Box", "Arrow", "Picture"]

COLOURS = {"leaf": ("#e8f0fe", "#4a7bd0"), "parameter": ("#fdf0d5", "#c98b1b"),
           "number": ("#f1f3f4", "#8a9096"), "constant": ("#f1f3f4", "#8a9096"),
           "operation": ("#ffffff", "#5f6368"), "view": ("#ffffff", "#b4b8bd"),
           "kernel": ("#e6f4ea", "#3c8d5a"), "host": ("#fce8e6", "#c5523f"),
           "output": ("#f3e8fd", "#8a52c9")}
MOST_LINES = 9                      # of one box; the rest is told by its tooltip
_WIDTH, _LINE = 6.6, 14.0           # of a letter and a line at 11 px


@dataclass
class Box:
    """A tensor, or a kernel with the steps it computes.

    `title` is the operation's name, `lines` what stands below it, `where` the user's source line,
    `detail` longer text: a kernel's LLVM, an operation's attributes.
    """

    number: int
    title: str
    lines: list[str] = field(default_factory=list)
    kind: str = "operation"
    where: str | None = None
    detail: str = ""


@dataclass
class Arrow:
    """The value of box `source` is read by box `target`; `label` is the operation it goes into."""

    source: int
    target: int
    label: str = ""


class Picture:
    """What `facula.viz.graph` returns: `nodes` (boxes) and `edges` (arrows), in every form.

    `print(picture)`, `picture.svg()`, `picture.html()`, `picture.save("graph.html")`; in a
    notebook it shows itself.
    """

    def __init__(self, nodes: list[Box], edges: list[Arrow], title: str = "graph"):
        self.nodes = nodes
        self.edges = edges
        self.title = title

    def __len__(self) -> int:
        return len(self.nodes)

    def __str__(self) -> str:
        into: dict[int, list[int]] = {}
        for edge in self.edges:
            into.setdefault(edge.target, []).append(edge.source)
        lines = [f"{self.title}: {len(self.nodes)} nodes, {len(self.edges)} edges"]
        for box in self.nodes:
            args = ", ".join(f"%{i}" for i in into.get(box.number, ()))
            first = box.lines[0] if box.lines else ""
            text = f"%{box.number} = {box.title}({args})"
            if first:
                text += f" -> {first}"
            lines.append(text + (f"    # {box.where}" if box.where else ""))
            lines += [f"      {line}" for line in box.lines[1:]]
        return "\n".join(lines)

    __repr__ = __str__

    def svg(self) -> str:
        """The picture as one SVG element, fonts and colours included."""
        shown = [_shown(box) for box in self.nodes]
        sizes = [(max(44.0, max(map(len, lines)) * _WIDTH + 16), len(lines) * _LINE + 10)
                 for lines in shown]
        index = {box.number: k for k, box in enumerate(self.nodes)}
        pairs = [(index[e.source], index[e.target]) for e in self.edges]
        centres, ways = place(sizes, pairs)
        width = max((x + w / 2 for (x, _), (w, _) in zip(centres, sizes)), default=0) + GAP_X
        height = max((y + h / 2 for (_, y), (_, h) in zip(centres, sizes)), default=0) + GAP_Y / 2
        for way in ways:
            width = max([width, *[x + GAP_X for x, _ in way]])
        out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
               f'width="{width:.0f}" height="{height:.0f}" '
               'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11">',
               '<defs><marker id="facula-tip" viewBox="0 0 8 8" refX="7" refY="4" '
               'markerWidth="7" markerHeight="7" orient="auto">'
               '<path d="M0 0L8 4L0 8z" fill="#80868b"/></marker></defs>',
               f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>']
        for (a, b), way, edge in zip(pairs, ways, self.edges):
            start = (centres[a][0], centres[a][1] + sizes[a][1] / 2)
            end = (centres[b][0], centres[b][1] - sizes[b][1] / 2 - 1)
            tip = f"<title>{_html.escape(edge.label)}</title>" if edge.label else ""
            out.append(f'<path d="{_curve([start, *way, end])}" fill="none" stroke="#80868b" '
                       f'marker-end="url(#facula-tip)">{tip}</path>')
        for box, (x, y), (w, h), lines in zip(self.nodes, centres, sizes, shown):
            fill, stroke = COLOURS.get(box.kind, COLOURS["operation"])
            about = "\n".join(filter(None, [f"%{box.number} {box.title}", *box.lines, box.where,
                                            box.detail[:600]]))
            out.append(f'<g><title>{_html.escape(about)}</title><rect x="{x - w / 2:.1f}" '
                       f'y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5" '
                       f'fill="{fill}" stroke="{stroke}"/>')
            for k, line in enumerate(lines):
                style = ' font-weight="bold"' if not k else ' fill="#3c4043"'
                out.append(f'<text x="{x:.1f}" y="{y - h / 2 + 5 + _LINE * (k + 0.78):.1f}" '
                           f'text-anchor="middle"{style}>{_html.escape(line)}</text>')
            out.append("</g>")
        return "\n".join([*out, "</svg>"])

    def html(self) -> str:
        """A whole page: the picture, and below it what each box holds."""
        parts = []
        for box in self.nodes:
            if not box.detail and box.kind != "kernel":
                continue
            lines = "\n".join([*box.lines, *([box.where] if box.where else [])])
            body = f"{lines}\n\n{box.detail}" if box.detail else lines
            parts.append(f"<details><summary>%{box.number} {_html.escape(box.title)}</summary>"
                         f"<pre>{_html.escape(body)}</pre></details>")
        title = _html.escape(self.title)
        return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                f"<title>{title}</title><style>body{{font:13px system-ui,sans-serif;margin:16px}}"
                ".graph{overflow:auto;border:1px solid #dadce0;border-radius:6px;max-height:85vh}"
                "pre{background:#f8f9fa;padding:8px;overflow:auto}summary{cursor:pointer;"
                "font-family:ui-monospace,monospace}</style></head><body>"
                f"<h1 style=\"font-size:16px\">{title}</h1><p>{len(self.nodes)} nodes, "
                f"{len(self.edges)} edges</p><div class=\"graph\">{self.svg()}</div>"
                f"{''.join(parts)}</body></html>\n")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file: .svg, .html, or .txt.  Raises ValueError for another suffix."""
        name = os.fspath(path)
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in (".svg", ".html", ".htm", ".txt"):
            raise ValueError(f"cannot tell from {name!r} what to write: use .svg, .html or .txt")
        text = {".svg": self.svg, ".txt": self.__str__}.get(suffix, self.html)()
        with open(name, "w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else text + "\n")

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return f'<div style="overflow:auto;max-height:700px">{self.svg()}</div>'


def _shown(box: Box) -> list[str]:
    lines = [box.title, *box.lines]
    if box.where:
        lines.append(os.path.basename(box.where))
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES - 1], f"and {len(lines) - MOST_LINES + 1} more"]
    return [line if len(line) <= 48 else line[:47] + "…" for line in lines]


def _curve(points: list[tuple[float, float]]) -> str:
    """A smooth path through the points, vertical at each."""
    x, y = points[0]
    out = [f"M{x:.1f} {y:.1f}"]
    for a, b in points[1:]:
        middle = (y + b) / 2
        out.append(f"C{x:.1f} {middle:.1f} {a:.1f} {middle:.1f} {a:.1f} {b:.1f}")
        x, y = a, b
    return "".join(out)
