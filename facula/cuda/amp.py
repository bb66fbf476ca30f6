"""`torch.cuda.amp`, which older programs name: mixed precision for a device that is not there.

Both warn and do nothing, as in PyTorch where there is no such device; `facula.amp.autocast('cpu')`
is the one that computes in bfloat16.
"""

from __future__ import annotations

from facula import amp as _amp
from facula.amp import custom_bwd, custom_fwd
from facula.dtype import DType, float16

__all__ = ["autocast", "custom_bwd", "custom_fwd", "GradScaler"]


class autocast(_amp.autocast):
    """`amp.autocast("cuda", ...)`: without effect, and with a warning if enabled."""

    def __init__(self, enabled: bool = True, dtype: DType = float16,
                 cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(_amp.GradScaler):
    """`amp.GradScaler("cuda", ...)`: scales by 1, and warns if enabled."""

    def __init__(self, init_scale: float = 2.0 ** 16, growth_factor: float = 2.0,
                 backoff_factor: float = 0.5, growth_interval: int = 2000,
                 enabled: bool = True) -> None:
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval,
                         enabled)
