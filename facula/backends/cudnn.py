"""`torch.backends.cudnn`: NVIDIA's kernels, which are not used."""

from collections.abc import Iterator
from contextlib import contextmanager

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """False: facula generates its own machine code."""
    return False


@contextmanager
def flags(enabled: bool = False, benchmark: bool = False, benchmark_limit: int = 10,
          deterministic: bool = True, allow_tf32: bool = False, fp32_precision: str = "none"
          ) -> Iterator[None]:
    """A context without effect: cuDNN is not used."""
    yield


def version() -> None:
    """None: it is not there."""
    return None
