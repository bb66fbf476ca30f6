"""Every family of public operations; importing this module fills the registry `OPS`."""

from __future__ import annotations

import importlib

FAMILIES = ("arithmetic", "unary", "composite", "reductions", "views", "parts", "shape",
            "matrices", "indexing", "gathering", "replaced", "padding", "scans", "sorting",
            "contractions", "einsum", "search", "statistics", "convert", "creation", "from_data",
            "patterns", "windows", "dlpack", "draws", "fourier", "spectra", "linalg",
            "special_functions", "copies", "calculus", "combine", "bits", "older")

for _family in FAMILIES:
    importlib.import_module(f"facula.ops.{_family}")
