"""Registries of optimizers: the choices of the config sections `optimizer` and `critic_optimizer`."""

from pgx.core.algorithm import OptimizerSpec
from pgx.ops.optim.first_order import SGD, Adam, AdamW, NoOptimizer, NoSteps, RMSprop
from pgx.ops.optim.gradient_steps import GradientSteps
from pgx.ops.optim.lbfgs import LBFGS

OPTIMIZERS: dict[str, type[OptimizerSpec]] = {
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "sgd": SGD,
}
# A line search needs a loss without noise: a critic's loss has fixed targets, a policy's is sampled.
CRITIC_OPTIMIZERS: dict[str, type[OptimizerSpec]] = {**OPTIMIZERS, "lbfgs": LBFGS}

__all__ = [
    "CRITIC_OPTIMIZERS",
    "LBFGS",
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "GradientSteps",
    "NoOptimizer",
    "NoSteps",
    "RMSprop",
]
