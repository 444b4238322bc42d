"""First-order optimizers: rules of descent, and the functions that `optimizer=` chooses from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pgx.core.algorithm import Engine
from pgx.core.ranks import SINGLE_PROCESS, Ranks
from pgx.core.schema import Fraction, NonNegative, Positive
from pgx.ops import descent
from pgx.ops.optim.gradient_steps import GradientSteps
from pgx.ops.schedules import SCHEDULES, ScheduleName


@dataclass(frozen=True)
class Adam:
    """Directions of Adam; with weight_decay those of AdamW."""

    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    moments: ClassVar[int] = 4  # the running means of g and of g², and what the weights of each add up to

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        first, second, first_total, second_total = moments
        first_total = descent.total_weight(first_total, self.beta1)
        second_total = descent.total_weight(second_total, self.beta2)
        direction, first, second = descent.adam(
            gradient, first, second, first_total, second_total, self.beta1, self.beta2, self.epsilon
        )
        if self.weight_decay > 0:
            direction = direction + self.weight_decay * weights
        return direction, (first, second, first_total, second_total)


@dataclass(frozen=True)
class RMSprop:
    """Directions of RMSprop, with heavy-ball momentum."""

    decay: float
    epsilon: float
    momentum: float
    moments: ClassVar[int] = 2  # the running mean of g², and the velocity

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        square, velocity = moments
        scaled, square = descent.rmsprop(gradient, square, self.decay, self.epsilon)
        velocity = descent.heavy_ball(scaled, velocity, self.momentum)
        return velocity, (square, velocity)


@dataclass(frozen=True)
class HeavyBall:
    """Directions of gradient descent with momentum."""

    momentum: float
    moments: ClassVar[int] = 1  # the velocity

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        velocity = descent.heavy_ball(gradient, moments[0], self.momentum)
        return velocity, (velocity,)


def adam(
    network: nn.Module,
    engine: Engine,
    learning_rate: Positive,
    schedule: ScheduleName,
    max_grad_norm: Positive | None,
    beta1: Fraction,
    beta2: Fraction,
    epsilon: Positive,
    ranks: Ranks = SINGLE_PROCESS,
) -> GradientSteps:
    """Adam.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.

    Args:
        network: what is stepped.
        engine: runs the steps.
        learning_rate: their α, before annealing.
        schedule: how learning_rate falls over training.
        max_grad_norm: clips the gradient's 2-norm before Adam sees it; None does not clip.
        beta1, beta2: decay of the first and second moments per step.
        epsilon: added to the root of the second moment.
        ranks: who have the other rows of a loss.
    """
    rule = Adam(beta1, beta2, epsilon, weight_decay=0.0)
    return GradientSteps(network, rule, learning_rate, SCHEDULES[schedule], max_grad_norm, engine, ranks)


def adamw(
    network: nn.Module,
    engine: Engine,
    learning_rate: Positive,
    schedule: ScheduleName,
    max_grad_norm: Positive | None,
    beta1: Fraction,
    beta2: Fraction,
    epsilon: Positive,
    weight_decay: NonNegative,
    ranks: Ranks = SINGLE_PROCESS,
) -> GradientSteps:
    """Adam with weight decay apart from the gradient.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.

    Args:
        weight_decay: share of each weight taken off per step and unit of learning rate; the others as in `adam`.
    """
    rule = Adam(beta1, beta2, epsilon, weight_decay)
    return GradientSteps(network, rule, learning_rate, SCHEDULES[schedule], max_grad_norm, engine, ranks)


def rmsprop(
    network: nn.Module,
    engine: Engine,
    learning_rate: Positive,
    schedule: ScheduleName,
    max_grad_norm: Positive | None,
    decay: Fraction,
    epsilon: Positive,
    momentum: NonNegative,
    ranks: Ranks = SINGLE_PROCESS,
) -> GradientSteps:
    """RMSprop: the gradient over the root of its running mean square.

    Source: see `pgx.ops.descent.rmsprop`.

    Args:
        decay: of the mean square per step; momentum: heavy-ball, 0 for none; the others as in `adam`.
    """
    rule = RMSprop(decay, epsilon, momentum)
    return GradientSteps(network, rule, learning_rate, SCHEDULES[schedule], max_grad_norm, engine, ranks)


def sgd(
    network: nn.Module,
    engine: Engine,
    learning_rate: Positive,
    schedule: ScheduleName,
    max_grad_norm: Positive | None,
    momentum: NonNegative,
    ranks: Ranks = SINGLE_PROCESS,
) -> GradientSteps:
    """Stochastic gradient descent with heavy-ball momentum (0 for none).

    Args as in `adam`.
    """
    rule = HeavyBall(momentum)
    return GradientSteps(network, rule, learning_rate, SCHEDULES[schedule], max_grad_norm, engine, ranks)
