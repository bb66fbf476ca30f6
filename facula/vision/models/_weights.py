"""What all the networks say to an argument `weights`."""

from __future__ import annotations

from typing import Any

__all__ = ["refuse"]


def refuse(name: str, weights: Any) -> None:
    """ValueError if trained weights are asked for: there are none here."""
    if weights is not None:
        raise ValueError(f"{name}: weights={weights!r}: no trained weights come with facula; call "
                         f"{name}() and load a file of torchvision's with load_state_dict "
                         "(facula.load reads .pt, facula.serialization safetensors)")
