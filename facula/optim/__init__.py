"""Optimisers and learning-rate schedules, under PyTorch's names."""

from facula.optim import lr_scheduler, swa_utils
from facula.optim.adafactor import Adafactor, Muon
from facula.optim.adagrad import ASGD, Adagrad
from facula.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from facula.optim.hessian_free import HessianFree, StepRejectedWarning
from facula.optim.kfac import KFAC
from facula.optim.lbfgs import LBFGS
from facula.optim.least_squares import LevenbergMarquardt
from facula.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
    required,
)
from facula.optim.rmsprop import Adadelta, RMSprop, Rprop
from facula.optim.sgd import GD, SGD, GradientDescent
from facula.optim.shampoo import SOAP, Shampoo
from facula.optim.sparse_adam import SparseAdam

__all__ = ["Optimizer", "SGD", "GradientDescent", "GD", "Adam", "AdamW", "Adamax", "NAdam",
           "RAdam", "RMSprop", "Adadelta", "Rprop", "Adagrad", "ASGD", "Adafactor", "Muon",
           "LBFGS", "HessianFree", "KFAC", "LevenbergMarquardt", "StepRejectedWarning",
           "Shampoo", "SOAP", "SparseAdam", "lr_scheduler", "swa_utils", "required",
           "register_optimizer_step_pre_hook", "register_optimizer_step_post_hook"]
