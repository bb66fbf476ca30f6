"""What all the networks say to an argument `weights`, or `pretrained` as it used to be called."""

from __future__ import annotations

from typing import Any

__all__ = ["refuse"]


def refuse(name: str, weights: Any, rest: dict[str, Any]) -> None:
    """ValueError if trained weights are asked for: there are none here.

    `pretrained=False` is taken out of the further arguments `rest`.
    """
    asked = None if weights is None else f"weights={weights!r}"
    if rest.pop("pretrained", False):
        asked = "pretrained=True"
    if asked is not None:
        raise ValueError(f"{name}: {asked}: no trained weights come with facula; call "
                         f"{name}() and load a file of torchvision's with load_state_dict "
                         "(facula.load reads .pt, facula.serialization safetensors)")
