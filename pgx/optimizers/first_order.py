"""Gradient steps: gradient, clipping, annealed learning rate and a rule of descent, in one object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from pgx.engines.arguments import leaves, substituted
from pgx.ops import descent
from pgx.ops.params import assign, flatten, split
from pgx.ops.schedules import SCHEDULES, Schedule, ScheduleName
from pgx.schema import Fraction, NonNegative, Positive
from pgx.types import Bound, Engine, Loss, State, rows_of


class Rule(Protocol):
    """How a gradient becomes the direction of a step; a dataclass of numbers."""

    @property
    def moments(self) -> int:
        """Vectors that it remembers from one step to the next; they begin at 0."""
        ...

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, ...], count: Tensor, of: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The direction and the moments after this gradient.

        Args:
            weights, gradient, moments: [P] each.
            count: [K] steps of each parameter, this one included.
            of: [P] which of the K parameters each coordinate belongs to.
        """
        ...


class GradientSteps:
    """Steps of a network along the clipped gradient of a loss, at learning_rate * schedule(progress).

    A parameter that a loss does not depend on is left as it is, and so is all that is remembered of it.

    Args:
        network: what it steps.
        rule: that turns a gradient into a direction.
        learning_rate: before annealing, > 0.
        schedule: factor of the learning rate as a function of progress in [0, 1].
        max_grad_norm: a longer gradient (2-norm over all parameters) is scaled down to it; None leaves it be.
        engine: runs the steps.
    """

    def __init__(
        self,
        network: nn.Module,
        rule: Rule,
        learning_rate: float,
        schedule: Schedule,
        max_grad_norm: float | None,
        engine: Engine,
    ) -> None:
        self.network = network
        self.parameters = list(network.parameters())
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.engine = engine
        self._step = Step(rule, max_grad_norm)
        weights = flatten(self.parameters)
        self._rate = torch.full((), learning_rate, dtype=weights.dtype, device=weights.device)
        sizes = torch.tensor([parameter.numel() for parameter in self.parameters], device=weights.device)
        self._of = torch.repeat_interleave(sizes)  # [P] which parameter a coordinate belongs to
        self._count = torch.zeros(len(self.parameters), dtype=torch.int64, device=weights.device)
        self._moments = tuple(torch.zeros_like(weights) for _ in range(rule.moments))

    def anneal(self, progress: float) -> float:
        """Set the learning rate for this progress in [0, 1]; returns it."""
        rate = self.learning_rate * self.schedule(progress)
        self._rate.fill_(rate)
        return rate

    def descend(self, loss: Loss, *data: Any) -> Tensor:
        """One step down the gradient of loss(network, *data); returns the loss before the step, detached scalar."""
        scale = (self._rate, self._of)
        step = self.engine.bind(self._step.on_all, loss, self.network, data, scale, rows=_rows(data))
        return self._take(step, [()])[0]

    def sweep(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """A step for each minibatch of rows; returns the losses before them, [len(minibatches)]."""
        scale = (self._rate, self._of)
        step = self.engine.bind(
            self._step.on_rows, loss, self.network, data, scale, rows=_rows(data), ragged=[0]
        )
        return self._take(step, [(index,) for index in minibatches])

    def _take(self, step: Bound, minibatches: Sequence[tuple[Tensor, ...]]) -> Tensor:
        losses = []
        state: Sequence[Tensor] = (flatten(self.parameters), self._count, *self._moments)
        for minibatch in minibatches:
            loss, *state = step(*minibatch, *state)
            losses.append(loss)
        weights, self._count, *moments = state
        self._moments = tuple(moments)
        assign(self.parameters, weights)
        return torch.stack(losses)

    def state_dict(self) -> State:
        return {"count": self._count, "moments": list(self._moments)}

    def load_state_dict(self, state: State) -> None:
        # A checkpoint is read onto the processor, wherever the network is.
        self._count = state["count"].to(self._count.device)
        self._moments = tuple(moment.to(self._rate.device) for moment in state["moments"])


def _rows(data: tuple[Any, ...]) -> int | None:
    """How many rows the data of a loss have; None where they have none."""
    return next((len(leaf) for leaf in leaves(data) if leaf.dim() > 0), None)


@dataclass(frozen=True)
class Step:
    """One step, as a pure function from weights [P], counts [K] and moments [P] to the loss before it and new ones."""

    rule: Rule
    max_grad_norm: float | None

    def on_rows(
        self,
        loss: Loss,
        network: nn.Module,
        data: tuple[Any, ...],
        scale: tuple[Tensor, Tensor],
        index: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """The same as `on_all` for some of the rows; index [b] int64."""
        return self.on_all(loss, network, rows_of(data, index), scale, *state)

    def on_all(
        self,
        loss: Loss,
        network: nn.Module,
        data: tuple[Any, ...],
        scale: tuple[Tensor, Tensor],
        weights: Tensor,
        count: Tensor,
        *moments: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step.

        Args:
            loss: (network, *data) -> scalar.
            network: what is stepped; its own weights are not looked at.
            data: of the loss.
            scale: the learning rate; and of each coordinate, which of the K parameters it belongs to, [P].
            weights, count, moments: before the step.
        """
        rate, of = scale
        parts = [part.detach().requires_grad_() for part in split(weights, list(network.parameters()))]
        names = [name for name, _ in network.named_parameters()]
        own = dict(zip(names, parts, strict=True))
        value: Tensor = substituted([(network, own)], loss, network, *data)
        gradients = torch.autograd.grad(value, parts, allow_unused=True)
        reached = [g is not None for g in gradients]
        pairs = zip(gradients, parts, strict=True)
        gradient = flatten(torch.zeros_like(p) if g is None else g for g, p in pairs)
        if self.max_grad_norm is not None:
            gradient = descent.clipped(gradient, self.max_grad_norm)
        count_after = count + torch.tensor(reached, device=count.device)
        direction, moments_after = self.rule.direction(weights, gradient, moments, count_after, of)
        after = (weights - rate * direction, *moments_after)
        if not all(reached):
            moved = (count_after > count)[of]
            after = tuple(
                torch.where(moved, new, old) for new, old in zip(after, (weights, *moments), strict=True)
            )
        return (value.detach(), after[0], count_after, *after[1:])


@dataclass(frozen=True)
class Adam:
    """Directions of Adam; with weight_decay those of AdamW."""

    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    moments: ClassVar[int] = 2

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, ...], count: Tensor, of: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        first, second = moments
        total1, total2 = (
            descent.total_weight(beta, count)[of].to(weights) for beta in (self.beta1, self.beta2)
        )
        direction, *after = descent.adam(
            gradient, first, second, total1, total2, self.beta1, self.beta2, self.epsilon
        )
        if self.weight_decay > 0:
            direction = direction + self.weight_decay * weights
        return direction, tuple(after)


@dataclass(frozen=True)
class RMSprop:
    """Directions of RMSprop, with heavy-ball momentum."""

    decay: float
    epsilon: float
    momentum: float
    moments: ClassVar[int] = 2

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, ...], count: Tensor, of: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        square, velocity = moments
        direction, square = descent.rmsprop(gradient, square, self.decay, self.epsilon)
        velocity = descent.heavy_ball(direction, velocity, self.momentum)
        return velocity, (square, velocity)


@dataclass(frozen=True)
class HeavyBall:
    """Directions of gradient descent with momentum."""

    momentum: float
    moments: ClassVar[int] = 1

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, ...], count: Tensor, of: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
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
    """
    rule = Adam(beta1, beta2, epsilon, weight_decay=0.0)
    return GradientSteps(network, rule, learning_rate, SCHEDULES[schedule], max_grad_norm, engine)


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
) -> GradientSteps:
    """Adam with weight decay apart from the gradient.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.

    Args:
        weight_decay: share of each weight taken off per step and unit of learning rate; the others as in `adam`.
    """
    rule = Adam(beta1, beta2, epsilon, weight_decay)
    return GradientSteps(network, rule, learning_rate, SCHEDULES[schedule], max_grad_norm, engine)


def rmsprop(
    network: nn.Module,
    engine: Engine,
    learning_rate: Positive,
    schedule: ScheduleName,
    max_grad_norm: Positive | None,
    decay: Fraction,
    epsilon: Positive,
    momentum: NonNegative,
) -> GradientSteps:
    """RMSprop: the gradient over the root of its running mean square.

    Source: see `pgx.ops.descent.rmsprop`.

    Args:
        decay: of the mean square per step; momentum: heavy-ball, 0 for none; the others as in `adam`.
    """
    rule = RMSprop(decay, epsilon, momentum)
    return GradientSteps(network, rule, learning_rate, SCHEDULES[schedule], max_grad_norm, engine)


def sgd(
    network: nn.Module,
    engine: Engine,
    learning_rate: Positive,
    schedule: ScheduleName,
    max_grad_norm: Positive | None,
    momentum: NonNegative,
) -> GradientSteps:
    """Stochastic gradient descent with heavy-ball momentum (0 for none).

    Args as in `adam`.
    """
    rule = HeavyBall(momentum)
    return GradientSteps(network, rule, learning_rate, SCHEDULES[schedule], max_grad_norm, engine)
