"""A fixture for tests of what a graph means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz.graphs import fresh_recorder


@pytest.fixture(params=["interpreted", "compiled"])
def both_ways(request: Any) -> Iterator[None]:
    """The test runs on the interpreter, and compiled at first sight."""
    with fresh_recorder(JIT=request.param == "compiled", INTERPRET=False):
        yield
