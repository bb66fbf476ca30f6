"""Every family of public operations; importing this module fills the registry `OPS`."""

from __future__ import annotations

import importlib

FAMILIES = ("arithmetic", "unary", "composite", "reductions", "views", "layout", "shape",
            "indexing", "gathering", "padding", "scans", "sorting", "contractions", "einsum",
            "linear", "convert", "creation", "dlpack", "search", "statistics",
            "extra")

for _family in FAMILIES:
    try:
        importlib.import_module(f"facula.ops.{_family}")
    except ModuleNotFoundError as _missing:
        if _missing.name != f"facula.ops.{_family}":
            raise
