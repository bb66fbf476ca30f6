"""`torch.backends.cudnn`: NVIDIA's kernels, which are not used."""

from collections.abc import Iterator
from contextlib import contextmanager

from facula.absent import Absent

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False

_none = Absent(__name__, "facula generates its own machine code")

is_available = _none.answers("is_available", False)
version = _none.answers("version", None)


@contextmanager
def flags(enabled: bool = False, benchmark: bool = False, benchmark_limit: int = 10,
          deterministic: bool = True, allow_tf32: bool = False, fp32_precision: str = "none"
          ) -> Iterator[None]:
    """A context without effect: cuDNN is not used."""
    yield
