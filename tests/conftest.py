"""What all tests share: a process that has run thousands of them stays quick."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _the_collector_looks_at_what_is_new() -> Iterator[None]:
    """What a file of tests leaves, compiled programs above all, stays, and is not gone through
    again whenever a later one makes or looks for garbage."""
    yield
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    # Between two files what is new is all that there is, and most of it is meant to stay: full
    # collections would go through it again and again, for a quarter of the time of all tests.
    gc.set_threshold(700, 10, 1000)
