"""`torch.utils.flop_counter`, as far as programs prepare for counting."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["FlopCounterMode"]


class FlopCounterMode:
    """A count of operations, which `facula.profiler` makes kernel by kernel instead.

    One may be made, and as long as nothing ran inside of it has counted nothing; `with` raises
    NotImplementedError.
    """

    def __init__(self, mods: Any = None, depth: int = 2, display: bool = True,
                 custom_mapping: Any = None):
        self.depth, self.display = depth, display

    def __enter__(self) -> NoReturn:
        raise NotImplementedError(
            "FlopCounterMode: facula counts no operations as they are called. Use "
            "facula.profiler.profile(), whose table has the operations of every kernel")

    def __exit__(self, *error: Any) -> None:
        return None

    def get_total_flops(self) -> int:
        """0: nothing has been counted."""
        return 0

    def get_flop_counts(self) -> dict[str, dict[Any, int]]:
        """Empty: nothing has been counted."""
        return {}
