"""Types for TorchScript's annotations: Python's own."""

from typing import (  # noqa: UP035
    Any,
    Dict,
    List,
    Optional,
    Tuple,
    Union,
)

from facula.jit import Future, annotate, ignore, unused

BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list

__all__ = ["Any", "BroadcastingList1", "BroadcastingList2", "BroadcastingList3", "Dict", "Future",
           "List", "Optional", "Tuple", "Union", "annotate", "ignore", "unused"]
