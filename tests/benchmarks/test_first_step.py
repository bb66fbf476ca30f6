"""The figure of compiling a long step."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

first_step = pytest.importorskip("first_step")


def test_what_the_first_steps_take_beyond_later_ones():
    later = [0.5, 9.0, 0.4, 0.6]                # one of them is disturbed
    assert first_step.beyond([3.0, 1.0] + 6 * [0.5] + later) == pytest.approx(
        3 + 1 + 6 * 0.5 - 8 * 0.55)
    assert first_step.beyond(8 * [0.5] + 4 * [0.6]) == 0.0
