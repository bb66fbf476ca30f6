"""Write docs/reference/ from the docstrings, the op registry and the table of flags.

    python tools/make_reference.py            # write
    python tools/make_reference.py --check    # say what is out of date, exit 1 if anything is
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ForwardRef

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "reference"
sys.path.insert(0, str(ROOT))

# Pages made of the public names of a module: (page, title, modules).
MODULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tensor", "Tensor and creation", ("facula.tensor", "facula.random", "facula.printing",
                                       "facula.serialization", "facula.info")),
    ("autograd", "Autograd", ("facula.autograd", "facula.autograd.functional",
                              "facula.autograd.forward_ad")),
    ("func", "Function transforms", ("facula.func",)),
    ("nn", "Modules", ("facula.nn", "facula.nn.init", "facula.nn.utils",
                       "facula.nn.utils.rnn", "facula.nn.utils.parametrize",
                       "facula.nn.utils.parametrizations", "facula.nn.utils.prune",
                       "facula.nn.utils.stateless", "facula.nn.grad")),
    ("functional", "Functions of layers that are not operations", ("facula.nn.functional",)),
    ("optim", "Optimisers", ("facula.optim", "facula.optim.lr_scheduler",
                             "facula.optim.swa_utils")),
    ("curvature", "Curvature", ("facula.curvature",)),
    ("amp", "Mixed precision", ("facula.amp",)),
    ("distributions", "Distributions", ("facula.distributions",
                                        "facula.distributions.constraints")),
    ("testing", "Testing", ("facula.testing",)),
    ("utils", "Utilities", ("facula.utils.checkpoint",)),
    ("data", "Data", ("facula.utils.data",)),
    ("vision", "Vision", ("facula.vision.datasets", "facula.vision.models",
                          "facula.vision.transforms")),
    ("viz", "Looking at graphs", ("facula.viz",)),
    ("profiler", "Profiles", ("facula.profiler",)),
    ("compile", "Compiled functions", ("facula.compiler",)),
    ("windows", "Windows", ("facula.signal.windows",)),
    ("masked", "Masked reductions", ("facula.masked",)),
    ("array_api", "Array API standard", ("facula.array_api", "facula.array_api.linalg",
                                         "facula.array_api.fft")),
    ("errors", "Errors", ("facula.errors",)),
    # What `facula` itself holds beyond all of these.
    ("package", "Top-level functions", ("facula", "facula.backends", "facula.cuda")),
)


class _Plain(str):
    """An annotation that prints without the quotes of a string."""

    def __repr__(self) -> str:
        return str(self)


def signature(fn: Any) -> str:
    """The signature as text, without `self` and without what differs from run to run."""
    try:
        found = inspect.signature(fn)
    except (TypeError, ValueError):
        return "(...)"

    def plain(annotation: Any) -> Any:
        if isinstance(annotation, ForwardRef):               # of a NamedTuple's fields
            annotation = annotation.__forward_arg__
        return _Plain(annotation) if isinstance(annotation, str) else annotation

    parameters = [p.replace(annotation=plain(p.annotation))
                  for p in found.parameters.values() if p.name not in ("self", "cls")]
    result = inspect.Signature.empty if inspect.isclass(fn) else plain(found.return_annotation)
    text = str(found.replace(parameters=parameters, return_annotation=result))
    text = re.sub(r" at 0x[0-9a-f]+", "", text).replace("facula.tensor.", "")
    return re.sub(r"<function (\w+)>", r"\1", text)            # a default


def _doc(thing: Any) -> str:
    own = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    return inspect.cleandoc(own) if own else ""


def _block(doc: str) -> list[str]:
    """A docstring as Markdown: paragraphs as they are, anything laid out by hand as code."""
    lines: list[str] = []
    for part in re.split(r"\n\s*\n", doc):
        laid_out = any(re.match(r" {4,}|>>> |\S.* {3,}\S", row) for row in part.splitlines())
        lines += ["```text", part, "```", ""] if laid_out else [part, ""]
    return lines


def _public(name: str, record: Any) -> Any:
    """The plain function that carries an operation's name in front of it, else None."""
    found = getattr(importlib.import_module("facula.nn.functional"),
                    name.removeprefix("functional."), None) \
        if name.startswith("functional.") else None
    return found if inspect.isfunction(found) and found is not record.fn and _doc(found) else None


def ops_pages() -> dict[str, str]:
    """A page for each family of the registry."""
    import facula  # noqa: F401
    from facula.ops.define import OPS

    for name in ("facula.nn.functional",):
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    families: dict[str, list[tuple[str, Any]]] = {}
    for name, record in OPS.items():
        prefix = "functional-" if name.startswith("functional.") else ""
        families.setdefault(prefix + record.family, []).append((name, record))
    pages = {}
    for family, rows in families.items():
        lines = [f"# Operations: {family.replace('-', ', ')}", ""]
        for name, record in sorted(rows, key=lambda row: row[0]):
            front = _public(name, record)
            shown = signature(front or record.body)
            lines += [f"## `{name}`", "", "```text", f"{name}{shown}", "```", ""]
            lines += _block(_doc(front) if front else record.doc)
            notes = []
            if record.method:
                notes.append(f"method `Tensor.{record.method}`")
            if record.inplace:
                notes.append(f"in place `{record.method or record.name}_`")
            if not record.differentiable:
                notes.append("has no gradient")
            if notes:
                text = "; ".join(notes)
                lines += [text[0].upper() + text[1:] + ".", ""]
        pages[f"ops-{family}.md"] = "\n".join(lines)
    return pages


def primitives_page() -> dict[str, str]:
    """The table of what the compiler knows."""
    from facula.ops.table import PRIMS

    kinds: dict[str, list[str]] = {}
    for name, record in sorted(PRIMS.items()):
        saves = "depends on its attributes" if callable(record.saves) else ", ".join(record.saves)
        kinds.setdefault(record.kind, []).append(
            f"| `{name}` | {'yes' if record.vjp else 'no'} | {'yes' if record.jvp else 'no'} | "
            f"{saves or '-'} |")
    lines = ["# Primitives", "",
             "Every operation is recorded as these. Operands agree in shape and dtype.", ""]
    for kind, rows in kinds.items():
        lines += [f"## {kind}", "",
                  "| name | reverse rule | forward rule | the reverse rule reads |",
                  "|---|---|---|---|", *rows, ""]
    return {"primitives.md": "\n".join(lines)}


def flags_page() -> dict[str, str]:
    """The table of environment flags."""
    from facula.config import FLAGS

    lines = ["# Environment flags", "", "| variable | type | default | meaning |",
             "|---|---|---|---|"]
    for row in FLAGS:
        default = f"`{row.default}`" if row.type is not bool else f"`{int(row.default)}`"
        lines.append(f"| `FACULA_{row.name}` | {row.type.__name__} | "
                     f"{'(empty)' if row.default == '' else default} | {row.doc} |")
    return {"flags.md": "\n".join([*lines, ""])}


def _members(thing: type) -> list[str]:
    """Methods and properties, also of bases that are a part of this class and nothing else."""
    lines = []
    parts = [b for b in thing.__bases__
             if (b.__doc__ or "").startswith(f"The part of `{thing.__name__}`")]
    for name, member in [pair for c in (thing, *parts) for pair in vars(c).items()]:
        if name.startswith("_"):
            continue
        fn = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
        if inspect.isfunction(fn) and _doc(fn):
            first = _doc(fn).split("\n\n")[0].replace("\n", " ")
            lines.append(f"- `{name}{signature(fn)}`: {first}")
        elif isinstance(member, property) and _doc(member):
            lines.append(f"- `{name}`: " + _doc(member).split("\n\n")[0].replace("\n", " "))
    return lines


def _of_the_package(name: str, thing: Any, seen: set[int]) -> bool:
    """Whether a name of `facula` is its own: not on another page, no method's in-place form."""
    home = getattr(thing, "__module__", None) or ""
    return (id(thing) not in seen and home.startswith("facula") and name != "Any"
            and not (name.endswith("_") and hasattr(sys.modules["facula"].Tensor, name)))


def module_pages() -> dict[str, str]:
    """A page for each row of MODULES whose modules exist."""
    from facula.ops.define import OPS

    registered = {id(_public(name, record) or record.fn) for name, record in OPS.items()}
    seen: set[int] = set()
    pages = {}
    for page, title, names in MODULES:
        lines = [f"# {title}", ""]
        for name in names:
            try:
                found = importlib.util.find_spec(name)
            except ModuleNotFoundError:
                found = None
            if found is None:
                continue
            module = importlib.import_module(name)
            lines += [f"## `{name}`", "", *_block(_doc(module))]
            public = getattr(module, "__all__", None) or [
                n for n, v in vars(module).items()
                if not n.startswith("_") and (inspect.isclass(v) or inspect.isfunction(v))
                and v.__module__.startswith(name)]
            for n in sorted(public):
                thing = getattr(module, n)
                if id(thing) in registered or not (inspect.isclass(thing) or callable(thing)):
                    continue
                if name == "facula" and not _of_the_package(n, thing, seen):
                    continue
                seen.add(id(thing))
                shown = "" if inspect.isclass(thing) and issubclass(thing, BaseException) \
                    else signature(thing)
                lines += [f"### `{n}`", "", "```text", f"{n}{shown}", "```", "",
                          *_block(_doc(thing))]
                if inspect.isclass(thing):
                    members = _members(thing)
                    lines += [*members, ""] if members else []
        if len(lines) > 2:
            pages[f"{page}.md"] = "\n".join(lines)
    return pages


def make() -> dict[str, str]:
    """Every page by its file name."""
    pages: dict[str, str] = {}
    makers: tuple[Callable[[], dict[str, str]], ...] = (
        ops_pages, primitives_page, flags_page, module_pages)
    for maker in makers:
        pages.update(maker())
    index = ["# Reference", "",
             "Made from the source by `make docs`; change the docstring, not the page.", ""]
    for name in sorted(pages):
        index.append(f"- [{pages[name].splitlines()[0].lstrip('# ')}]({name})")
    pages["README.md"] = "\n".join([*index, ""])
    return {name: re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n" for name, text in pages.items()}


def stale() -> list[str]:
    """What differs between the folder and what it should hold, as lines of text."""
    pages = make()
    there = {p.name: p.read_text(encoding="utf-8") for p in OUT.glob("*.md")}
    found = [f"docs/reference/{n} should not be there" for n in sorted(there.keys() - pages.keys())]
    for name, text in pages.items():
        if there.get(name) != text:
            found.append(f"docs/reference/{name} is out of date")
            found += list(difflib.unified_diff(there.get(name, "").splitlines(),
                                               text.splitlines(), "there", "wanted",
                                               lineterm="", n=0))[:12]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/reference from the source.")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    if parser.parse_args().check:
        found = stale()
        print("\n".join([*found, "run `make docs`"]) if found else "docs/reference is up to date")
        return 1 if found else 0
    pages = make()
    OUT.mkdir(parents=True, exist_ok=True)
    for path in OUT.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (OUT / name).write_text(text, encoding="utf-8")
    print(f"{len(pages)} pages in docs/reference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
