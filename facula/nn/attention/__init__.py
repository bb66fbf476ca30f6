"""`torch.nn.attention`: which kernel attention is to use, of which facula chooses by itself."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["SDPBackend", "sdpa_kernel"]


class SDPBackend(enum.IntEnum):
    """PyTorch's kernels by name."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextmanager
def sdpa_kernel(backends: Sequence[SDPBackend] | SDPBackend, set_priority: bool = False
                ) -> Iterator[None]:
    """A context (or decorator) that allows some kernels: they differ in speed alone, and facula
    takes its own.

    AssertionError for an empty list or for anything that is not an `SDPBackend`.
    """
    given = [backends] if isinstance(backends, SDPBackend) else list(backends)
    if not given or not all([isinstance(b, SDPBackend) for b in given]):
        raise AssertionError("Backend must be an instance of SDPBackend or a list of SDPBackend "
                             f"instances, not {backends!r}")
    yield
