"""Imports run one way, and `import facula` stays light."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _tool():
    spec = importlib.util.spec_from_file_location("check_imports",
                                                  ROOT / "tools" / "check_imports.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check = _tool()


def test_imports_run_one_way():
    assert check.problems() == []


def _package(tmp_path, **files):
    for name, text in {"__init__": "", **files}.items():
        path = tmp_path / "facula" / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return check.problems(tmp_path)


@pytest.mark.parametrize("files, words", [
    ({"dtype": "from facula.tensor import Tensor", "tensor": ""}, "above it"),
    ({"dtype": "import facula.tensor", "tensor": ""}, "above it"),
    ({"dtype": "from . import tensor", "tensor": ""}, "above it"),
    ({"dtype": "def f():\n    from facula.tensor import Tensor", "tensor": ""},
     "inside a function"),
    ({"dtype": "from facula import errors", "errors": "from facula import dtype"}, "a cycle"),
    ({"tensor": "import facula.codegen.llvm", "codegen.llvm": ""}, "the compiler is reached"),
    ({"nn.loss": "import torch.nn"}, "a peer"),
    ({"tensor": "from facula.nowhere import x"}, "does not exist"),
    ({"novel": ""}, "no layer names it"),
    ({"tensor": "from facula.dtype import x", "dtype": ""}, None),
    ({"tensor": "def f():\n    from facula.codegen import llvm", "codegen.llvm": ""}, None),
    ({"dtype": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
               "    from facula.tensor import Tensor", "tensor": ""}, None),
])
def test_the_check_finds_what_it_is_for(tmp_path, files, words):
    found = _package(tmp_path, **files)
    if words is None:
        assert found == []
    else:
        assert any(words in line for line in found), found


def _after_import(statement: str, question: str) -> str:
    return subprocess.run([sys.executable, "-c", f"import sys\n{statement}\nprint({question})"],
                          check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


HEAVY = ("llvmlite", "ml_dtypes", "safetensors", "PIL", "scipy", "torch", "jax", "matplotlib",
         "multiprocessing", "IPython", "facula.codegen", "facula.groups", "facula.schedule",
         "facula.reference", "facula.runtime.jit",
         "facula.runtime.threads", "facula.cli", "facula.vision")


@pytest.mark.parametrize("statement", [
    "import facula", "import facula.nn, facula.optim", "import facula; x = facula.ones(2) + 1"])
def test_import_is_light(statement):
    loaded = _after_import(statement, f"[m for m in {HEAVY!r} if m in sys.modules]")
    assert loaded == "[]"


def test_only_the_standard_library_and_numpy_are_loaded():
    roots = _after_import(
        "before = set(sys.modules)\nimport numpy\nimport facula",
        "sorted({m.partition('.')[0] for m in set(sys.modules) - before}"
        " - sys.stdlib_module_names)")
    extra = [m for m in eval(roots) if m not in ("facula", "numpy") and not m.startswith("_")]
    assert extra == []


def test_vision_needs_no_pillow_to_be_imported():
    assert _after_import("from facula.vision import datasets, transforms",
                         "'PIL' in sys.modules") == "False"
