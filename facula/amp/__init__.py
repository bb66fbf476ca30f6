"""Mixed precision: `autocast`, and `GradScaler` for what float16 cannot hold."""

from facula.amp import autocast_mode as autocast_mode
from facula.amp import grad_scaler as grad_scaler
from facula.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from facula.amp.grad_scaler import GradScaler

__all__ = ["autocast", "custom_fwd", "custom_bwd", "is_autocast_available", "GradScaler"]
