"""First-order optimizers: Adam, AdamW, RMSprop, SGD, and none."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pgx.core.agent import State
from pgx.core.algorithm import Engine, Loss
from pgx.core.data import rows_of
from pgx.core.defaults import DEFAULT
from pgx.core.ranks import SINGLE_PROCESS, Ranks
from pgx.core.schema import Fraction, NonNegative, Positive, Validated
from pgx.ops.optim import formulas
from pgx.ops.optim.formulas import SCHEDULES, ScheduleName
from pgx.ops.optim.gradient_steps import GradientSteps, GradientTransform


@dataclass(frozen=True)
class AdamTransform:
    """Gradient transform of Adam; with weight_decay > 0, of AdamW."""

    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    moments: ClassVar[int] = 4  # running means of g and g², and the sum of the weights of each mean

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        first, second, first_total, second_total = moments
        first_total = formulas.total_weight(first_total, self.beta1)
        second_total = formulas.total_weight(second_total, self.beta2)
        direction, first, second = formulas.adam(
            gradient, first, second, first_total, second_total, self.beta1, self.beta2, self.epsilon
        )
        if self.weight_decay > 0:
            direction = direction + self.weight_decay * weights
        return direction, (first, second, first_total, second_total)


@dataclass(frozen=True)
class RMSpropTransform:
    """Gradient transform of RMSprop with heavy-ball momentum."""

    decay: float
    epsilon: float
    momentum: float
    moments: ClassVar[int] = 2  # running mean of g², velocity

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        square, velocity = moments
        scaled, square = formulas.rmsprop(gradient, square, self.decay, self.epsilon)
        velocity = formulas.heavy_ball(scaled, velocity, self.momentum)
        return velocity, (square, velocity)


@dataclass(frozen=True)
class HeavyBallTransform:
    """Gradient transform of stochastic gradient descent with heavy-ball momentum."""

    momentum: float
    moments: ClassVar[int] = 1  # velocity

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        velocity = formulas.heavy_ball(gradient, moments[0], self.momentum)
        return velocity, (velocity,)


@dataclass(frozen=True)
class FirstOrder(Validated, ABC):
    """Base of first-order optimizers: a step follows a transform of the clipped gradient."""

    learning_rate: Positive = DEFAULT  # α, before annealing
    schedule: ScheduleName = DEFAULT  # annealing of learning_rate over training
    # bound on the gradient's 2-norm before the transform; None: no clipping
    max_grad_norm: Positive | None = DEFAULT

    @abstractmethod
    def transform(self) -> GradientTransform:
        """Return the transform from a gradient to the direction of a step."""

    def make(self, network: nn.Module, engine: Engine, ranks: Ranks = SINGLE_PROCESS) -> GradientSteps:
        """Return an optimizer of the network."""
        schedule = SCHEDULES[self.schedule]
        return GradientSteps(
            network, self.transform(), self.learning_rate, schedule, self.max_grad_norm, engine, ranks
        )


@dataclass(frozen=True)
class Adam(FirstOrder):
    """Adam.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.
    """

    config_file: ClassVar[str] = "optimizer/adam"

    beta1: Fraction = DEFAULT  # decay of the first moment per step
    beta2: Fraction = DEFAULT  # decay of the second moment per step
    epsilon: Positive = DEFAULT  # added to the root of the second moment

    def transform(self) -> AdamTransform:
        return AdamTransform(self.beta1, self.beta2, self.epsilon, weight_decay=0.0)


@dataclass(frozen=True)
class AdamW(FirstOrder):
    """Adam with decoupled weight decay.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.
    """

    config_file: ClassVar[str] = "optimizer/adamw"

    beta1: Fraction = DEFAULT  # beta1, beta2 and epsilon as in `Adam`
    beta2: Fraction = DEFAULT
    epsilon: Positive = DEFAULT
    # fraction of each weight subtracted per step and unit of learning rate
    weight_decay: NonNegative = DEFAULT

    def transform(self) -> AdamTransform:
        return AdamTransform(self.beta1, self.beta2, self.epsilon, self.weight_decay)


@dataclass(frozen=True)
class RMSprop(FirstOrder):
    """RMSprop: the gradient divided by the root of its running mean square.

    Source: see `pgx.ops.optim.formulas.rmsprop`.
    """

    config_file: ClassVar[str] = "optimizer/rmsprop"

    decay: Fraction = DEFAULT  # of the mean square per step
    epsilon: Positive = DEFAULT  # added to the root of the mean square
    momentum: NonNegative = DEFAULT  # heavy-ball momentum; 0: none

    def transform(self) -> RMSpropTransform:
        return RMSpropTransform(self.decay, self.epsilon, self.momentum)


@dataclass(frozen=True)
class SGD(FirstOrder):
    """Stochastic gradient formulas."""

    config_file: ClassVar[str] = "optimizer/sgd"

    momentum: NonNegative = DEFAULT  # heavy-ball momentum; 0: none

    def transform(self) -> HeavyBallTransform:
        return HeavyBallTransform(self.momentum)


class NoSteps:
    """Optimizer of a network that does not change, such as one without parameters."""

    steps_taken = 0

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def anneal(self, progress: float) -> float:
        """Return NaN, which is not logged."""
        return math.nan

    @torch.no_grad()
    def step(self, loss: Loss, *data: Any) -> Tensor:
        """Return the loss without a step."""
        return loss(self.network, *data)

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """Return the losses of the minibatches without steps."""
        return torch.stack([self.step(loss, *rows_of(data, index)) for index in minibatches])

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to restore."""


@dataclass(frozen=True)
class NoOptimizer:
    """Choice of no optimizer: `optimizer=none`."""

    def make(self, network: nn.Module, engine: Engine, ranks: Ranks = SINGLE_PROCESS) -> NoSteps:
        """Return an optimizer that leaves the network unchanged; engine and ranks are unused."""
        return NoSteps(network)
