"""The focal loss."""

from __future__ import annotations

from facula.nn import functional as F
from facula.tensor import Tensor

__all__ = ["sigmoid_focal_loss"]


def sigmoid_focal_loss(inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2,
                       reduction: str = "none") -> Tensor:
    """The cross-entropy of sigmoid(inputs), by (1 - p of the right answer)^gamma (Lin et al. 2017).

    `alpha` weighs the targets 1, and 1 - alpha the targets 0; a negative one weighs nothing.
    ValueError for a reduction other than 'none', 'mean' and 'sum'.
    """
    if not 0 <= alpha <= 1 and alpha != -1:
        raise ValueError(f"Invalid alpha value: {alpha}. alpha must be in the range [0,1] or -1 "
                         "for ignore.")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"Invalid Value for arg 'reduction': '{reduction} \n Supported reduction "
                         "modes: 'none', 'mean', 'sum'")
    p = inputs.sigmoid()                                       # type: ignore[attr-defined]
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    right = p * targets + (1 - p) * (1 - targets)
    loss = loss * (1 - right) ** gamma
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()  # type: ignore[no-any-return]
