"""Optimizers by name: what `optimizer=` and `critic_optimizer=` choose from."""

from collections.abc import Callable

from pgx.optimizers.first_order import adam, adamw, rmsprop, sgd
from pgx.optimizers.gradient_steps import GradientSteps
from pgx.optimizers.lbfgs import lbfgs
from pgx.optimizers.make import make_optimizer
from pgx.optimizers.none import NoSteps
from pgx.types import Optimizer

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
