"""What tests of schedules share."""

from __future__ import annotations

import pytest

from facula.schedule import executable


@pytest.fixture
def made(monkeypatch):
    """The executables that are made."""
    found = []
    original = executable.make_executable

    def note(*args):
        found.append(original(*args))
        return found[-1]

    monkeypatch.setattr(executable, "make_executable", note)
    return found
