"""Optimizers by name: what `optimizer=` and `critic_optimizer=` choose from."""

from collections.abc import Callable

from pgx.core.algorithm import Optimizer
from pgx.ops.optim.first_order import adam, adamw, rmsprop, sgd
from pgx.ops.optim.gradient_steps import GradientSteps
from pgx.ops.optim.lbfgs import lbfgs
from pgx.ops.optim.make import make_optimizer
from pgx.ops.optim.none import NoSteps

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
# A policy's loss is noisy where a critic's, on fixed targets, is not: a line search is for critics.
CRITIC_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {**OPTIMIZERS, "lbfgs": lbfgs}

__all__ = [
    "CRITIC_OPTIMIZERS",
    "OPTIMIZERS",
    "GradientSteps",
    "NoSteps",
    "adam",
    "adamw",
    "lbfgs",
    "make_optimizer",
    "rmsprop",
    "sgd",
]
