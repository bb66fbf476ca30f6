"""Learning-rate schedules: what an optimiser's `lr` is at each epoch or step.

A schedule sets `group["lr"]`; the rate is a runtime number of the step's program, so that a new
one compiles nothing.
"""

from facula.optim.lr_scheduler.base import LRScheduler
from facula.optim.lr_scheduler.combined import ChainedScheduler, SequentialLR
from facula.optim.lr_scheduler.cycles import CyclicLR, OneCycleLR
from facula.optim.lr_scheduler.factors import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from facula.optim.lr_scheduler.plateau import ReduceLROnPlateau

_LRScheduler = LRScheduler

__all__ = ["LRScheduler", "LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR",
           "LinearLR", "ExponentialLR", "PolynomialLR", "CosineAnnealingLR",
           "CosineAnnealingWarmRestarts", "SequentialLR", "ChainedScheduler",
           "ReduceLROnPlateau", "CyclicLR", "OneCycleLR"]
