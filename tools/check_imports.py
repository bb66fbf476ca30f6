"""Check that imports run one way along the pipeline.

    python tools/check_imports.py          # say what is wrong, exit 1 if anything is
    python tools/check_imports.py --show   # print the layers with the modules in each

The rules, over the real imports of every file under facula/:

1. A module may import, when it is loaded, what stands in its own layer or a lower one (`LAYERS`).
2. What users write against (tensors, operations, autograd, modules, ...) does not load the
   compiler: `schedule`, `codegen`, what both need (`groups`) and the native half of `runtime` are
   reached when a graph is flushed, and so not before the first one (`COMPILER`, `DRIVERS`).
3. An import inside a function may go up only where `UPWARD` lists it with the reason.
4. No module imports itself by way of others while it is loaded.
5. Nothing imports a peer (`PEERS`).
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "facula"

# From the bottom up.  A module belongs to the layer that names it, or else the nearest package
# around it.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ground", ("absent", "config", "errors", "dtype", "dtypes", "device", "version", "xpu",
                "mps", "return_types")),
    ("values", ("graph.spec", "runtime.flight", "runtime.interrupts", "runtime.pages",
                "runtime.allocator", "runtime.plan")),
    ("primitives", ("ops.primitive", "ops.table")),
    ("graph", ("graph",)),
    ("reference", ("reference",)),
    ("groups", ("groups",)),
    ("text", ("codegen",)),
    ("elements", ("codegen.elements",)),
    ("products", ("codegen.products",)),
    ("kernels", ("codegen.convolutions", "codegen.attention", "codegen.recurrence")),
    ("schedule", ("schedule",)),
    ("runtime", ("runtime",)),
    ("programs", ("schedule.executable", "schedule.stored")),    # a plan with its machine code
    ("flush", ("graph.flush",)),
    ("tensor", ("storage", "tensor")),
    ("ops", ("ops", "info", "modes", "generator", "random", "printing", "linalg", "fft",
             "special", "masked", "checks", "types", "cpu", "signal", "compat")),
    ("autograd", ("autograd", "func")),
    ("capture", ("compiler", "jit", "fx")),
    ("nn", ("nn",)),
    ("users", ("optim", "data", "utils", "vision", "amp", "serialization", "pickled",
               "export", "hub", "onnx", "distributions", "multiprocessing", "backends", "cuda",
               "accelerator", "distributed", "curvature", "library", "_higher_order_ops", "_C",
               "_dynamo", "overrides")),
    ("package", ("",)),
    # facula as other libraries expect it
    ("standards", ("array_api", "compat.einops", "compat.einops_layers")),
    ("tools", ("viz", "profiler", "testing", "cli", "__main__")),
)

COMPILER = ("schedule", "groups", "codegen", "reference", "runtime")
DRIVERS = ("schedule", "groups", "codegen", "reference", "runtime", "graph.flush", "compiler",
           "jit", "viz", "profiler", "testing", "cli", "__main__")
# Memory, its layout, and who writes to it now: every tensor holds some.
LIGHT = ("runtime.flight", "runtime.interrupts", "runtime.pages", "runtime.allocator",
         "runtime.plan")

# (importer, imported, reason); a name stands for itself and everything below it.
UPWARD: tuple[tuple[str, str, str], ...] = (
    ("ops.primitive", "ops.define", "a derivative rule is written with operations, and runs when "
     "a gradient is asked for"),
    ("ops.primitive", "tensor", "the same"),
    ("ops.primitive", "ops", "the same"),
    ("ops.primitive", "autograd", "a forward rule that is a backward one transposed"),
    ("ops.primitive", "runtime.threads", "NumPy's work on rows is shared among as many threads"),
    ("tensor", "ops", "methods that fall back on an operation"),
    ("tensor", "autograd", "methods that ask for gradients"),
    ("codegen.target", "runtime.amx", "what this process may use is found out by trying it"),
    ("graph", "graph.flush", "a graph past its bound is run"),
    ("graph.recover", "reference", "after a failure the steps are run one by one"),
    ("ops.unary", "nn.functional.activation", "methods of tensors that layers are made of"),
    ("ops.custom", "autograd", "an operation with a gradient that the program gave it"),
    ("ops.dlpack", "array_api", "a tensor names the namespace of the array standard"),
    ("autograd.methods", "nn", "a parameter is a tensor that its module registers"),
    ("func", "nn", "a module is called with other parameters than its own"),
    ("compiler", "nn", "a compiled module is a module"),
    ("nn", "", "public functions under the names users know them by"),
    ("optim", "", "the same"),
    ("data", "", "the same"),
    ("utils", "", "the same"),
    ("vision", "", "the same"),
    ("amp", "", "the same"),
    ("serialization", "", "the same"),
    ("curvature", "", "the same"),
)

PEERS = ("torch", "jax", "tensorflow", "tinygrad", "torchvision")


class Import(NamedTuple):
    """One import: who, whom, on which line, and whether inside a function."""

    source: str
    target: str
    line: int
    lazy: bool


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the package by its name below it ('' is the package itself)."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _is_typing_only(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _statements(tree: ast.AST, lazy: bool = False
                ) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, lazy
        elif isinstance(node, ast.If) and _is_typing_only(node):
            for other in node.orelse:
                yield from _statements(other, lazy)
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _statements(node, lazy or inside)


def imports(root: Path = ROOT) -> tuple[list[Import], list[Import]]:
    """The package's imports of its own modules, and those of anything else."""
    known = modules(root)
    own, foreign = [], []
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node, lazy in _statements(ast.parse(path.read_text(encoding="utf-8"))):
            wanted: list[str] = []
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            else:
                base = node.module or ""
                if node.level:
                    up = package.split(".")[:len(package.split(".")) - node.level + 1]
                    base = ".".join([PACKAGE, *filter(None, up), *filter(None, [base])])
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    is_module = full.removeprefix(f"{PACKAGE}.") in known
                    wanted.append(full if is_module and base.startswith(PACKAGE) else base)
            for full in dict.fromkeys(wanted):
                if full == PACKAGE or full.startswith(f"{PACKAGE}."):
                    target = full.removeprefix(PACKAGE).lstrip(".")
                    own.append(Import(name, target, node.lineno, lazy))
                else:
                    foreign.append(Import(name, full, node.lineno, lazy))
    return own, foreign


def below(name: str, prefix: str) -> bool:
    """Is `name` the module `prefix` or inside it?  '' is the package and nothing inside it."""
    return name == prefix or bool(prefix) and name.startswith(f"{prefix}.")


def layer(name: str) -> int | None:
    """The layer of a module, counted from the bottom; None if the table does not place it."""
    best, found = -1, None
    for height, (_, prefixes) in enumerate(LAYERS):
        for prefix in prefixes:
            if below(name, prefix) and len(prefix) > best:
                best, found = len(prefix), height
    return found


def _cycle(edges: dict[str, list[str]]) -> list[str] | None:
    """Some cycle among the edges, as the modules along it, or None."""
    state: dict[str, int] = {}
    for start in edges:
        if start in state:
            continue
        stack = [(start, iter(edges.get(start, ())))]
        state[start] = 1
        while stack:
            name, rest = stack[-1]
            for target in rest:
                if state.get(target) == 1:
                    trail = [n for n, _ in stack]
                    return [*trail[trail.index(target):], target]
                if target not in state:
                    state[target] = 1
                    stack.append((target, iter(edges.get(target, ()))))
                    break
            else:
                state[name] = 2
                stack.pop()
    return None


def problems(root: Path = ROOT) -> list[str]:
    """Everything that breaks a rule, a sentence each."""
    known = modules(root)
    own, foreign = imports(root)
    found = [f"facula.{n}: no layer names it; place it in LAYERS" for n in known
             if layer(n) is None]
    edges: dict[str, list[str]] = {}
    for source, target, line, lazy in own:
        where = f"{known[source].relative_to(root)}:{line}: imports {PACKAGE}.{target}".rstrip(".")
        low, high = layer(target), layer(source)
        if low is None or high is None:
            if target not in known:
                found.append(f"{where}, which does not exist")
            continue
        if target not in known:
            found.append(f"{where}, which does not exist")
        elif lazy:
            if low > high and not any(below(source, a) and below(target, b)
                                      for a, b, _ in UPWARD):
                found.append(f"{where} from inside a function, upwards ({LAYERS[high][0]} < "
                             f"{LAYERS[low][0]}), and UPWARD does not list it")
        else:
            if source != target:
                edges.setdefault(source, []).append(target)
            if low > high:
                found.append(f"{where}, which is above it ({LAYERS[high][0]} < "
                             f"{LAYERS[low][0]})")
            elif (any(below(target, c) for c in COMPILER)
                  and not any(below(target, c) for c in LIGHT)
                  and not any(below(source, d) for d in DRIVERS)):
                found.append(f"{where} while it is loaded: the compiler is reached when a graph "
                             "is flushed")
    for source, target, line, _ in foreign:
        if target.partition(".")[0] in PEERS:
            found.append(f"{known[source].relative_to(root)}:{line}: imports {target}, a peer")
    cycle = _cycle(edges)
    if cycle:
        found.append("a cycle: " + " -> ".join(f"facula.{n}".rstrip(".") for n in cycle))
    return found


def unused(root: Path = ROOT) -> list[str]:
    """Rows of UPWARD that no import needs any more."""
    own, _ = imports(root)
    lazy = [i for i in own if i.lazy]
    return [f"{a} -> {b}" for a, b, _ in UPWARD
            if not any(below(i.source, a) and below(i.target, b) for i in lazy)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the direction of facula's imports.")
    parser.add_argument("--show", action="store_true", help="print the layers")
    if parser.parse_args().show:
        names = modules()
        for height in reversed(range(len(LAYERS))):
            inside = sorted(n or "(the package)" for n in names if layer(n) == height)
            print(f"{LAYERS[height][0]:>11}  {' '.join(inside)}")
        return 0
    found = problems()
    print("\n".join(found) if found else f"import direction: {len(modules())} modules, all as "
          "they should be")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
