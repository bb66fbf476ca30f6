"""What code for AArch64 computes, under emulation, against the NumPy interpreter.

More of it: `python -m pytest -p tests.emulated.plugin tests/schedule` and others of the tests that
run compiled programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: str, **flags: object) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.emulated.programs", *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=1500, env={
        **os.environ, "PYTHONPATH": str(ROOT), **{f"FACULA_{k}": str(v) for k, v in flags.items()}})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_programs_compute_the_same(tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    _run(str(tmp_path / "here.npz"), JIT=0)
    _run("emulated", str(tmp_path / "there.npz"))
    here, there = np.load(tmp_path / "here.npz"), np.load(tmp_path / "there.npz")
    assert set(here.files) == set(there.files)
    for name in here.files:
        want, got = here[name], there[name]
        tolerance = 2e-2 if name.startswith("sixteen") else 1e-4
        scale = np.abs(want[np.isfinite(want)]).max(initial=1e-3)
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * float(scale),
                                   err_msg=name)


def test_wide_instructions_of_others_are_not_written() -> None:
    """Nothing of x86 is in the text of kernels for NEON."""
    from facula import config
    from facula.codegen.llvm import Module
    from facula.codegen.products.choice import emit_contraction
    from facula.codegen.products.contraction import Contraction
    with config.override(ISA="neon"):
        for dtype in ("bfloat16", "float16", "float32"):
            made = emit_contraction(Module(), "product", Contraction(
                dtype, (), 40, 50, 60, (60, 1), (50, 1), (50, 1)), None)
            texts = [k.module.text() for phase in made.phases for k in phase]
            assert texts and not any("x86" in text for text in texts)
