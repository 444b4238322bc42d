"""Gradient steps: optimizer, annealed learning rate and clipping by norm, in one object a rule descends with."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pgx.ops.schedules import SCHEDULES, Schedule, ScheduleName
from pgx.schema import Fraction, NonNegative, Positive
from pgx.types import State


class GradientSteps:
    """Steps along the clipped gradient of a loss, at learning_rate * schedule(progress).

    Args:
        inner: the torch optimizer that turns a gradient into a step.
        parameters: what it steps.
        learning_rate: before annealing, > 0.
        schedule: factor of the learning rate as a function of progress in [0, 1].
        max_grad_norm: a longer gradient (2-norm over all parameters) is scaled down to it; None leaves it be.
    """

    def __init__(
        self,
        inner: torch.optim.Optimizer,
        parameters: list[torch.nn.Parameter],
        learning_rate: float,
        schedule: Schedule,
        max_grad_norm: float | None,
    ) -> None:
        self.inner = inner
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.max_grad_norm = max_grad_norm

    def anneal(self, progress: float) -> float:
        """Set the learning rate for this progress in [0, 1]; returns it."""
        rate = self.learning_rate * self.schedule(progress)
        for group in self.inner.param_groups:
            group["lr"] = rate
        return rate

    def descend(self, loss: Callable[[], Tensor]) -> Tensor:
        """One step down the gradient of loss(); returns the loss before the step, detached scalar."""
        self.inner.zero_grad(set_to_none=True)
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.inner.step()
        return value.detach()

    def state_dict(self) -> State:
        return self.inner.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.inner.load_state_dict(state)


def adam(
    parameters: Iterable[torch.nn.Parameter],
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
        parameters: what is stepped.
        learning_rate: their α, before annealing.
        schedule: how learning_rate falls over training.
        max_grad_norm: clips the gradient's 2-norm before Adam sees it; None does not clip.
        beta1, beta2: decay of the first and second moments per step.
        epsilon: added to the root of the second moment.
    """
    weights = list(parameters)
    inner = torch.optim.Adam(weights, lr=learning_rate, betas=(beta1, beta2), eps=epsilon, fused=True)
    return GradientSteps(inner, weights, learning_rate, SCHEDULES[schedule], max_grad_norm)


def adamw(
    parameters: Iterable[torch.nn.Parameter],
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
    weights = list(parameters)
    inner = torch.optim.AdamW(
        weights,
        lr=learning_rate,
        betas=(beta1, beta2),
        eps=epsilon,
        weight_decay=weight_decay,
        fused=True,
    )
    return GradientSteps(inner, weights, learning_rate, SCHEDULES[schedule], max_grad_norm)


def rmsprop(
    parameters: Iterable[torch.nn.Parameter],
    learning_rate: Positive,
    schedule: ScheduleName,
    max_grad_norm: Positive | None,
    decay: Fraction,
    epsilon: Positive,
    momentum: NonNegative,
) -> GradientSteps:
    """RMSprop: the gradient over the root of its running mean square.

    Source: Tieleman and Hinton, Coursera lecture 6.5, 2012; the form of Mnih et al., "Asynchronous methods for deep
    reinforcement learning", 2016, eq. 8, with ε outside of the root.

    Args:
        decay: of the mean square per step; momentum: heavy-ball, 0 for none; the others as in `adam`.
    """
    weights = list(parameters)
    inner = torch.optim.RMSprop(weights, lr=learning_rate, alpha=decay, eps=epsilon, momentum=momentum)
    return GradientSteps(inner, weights, learning_rate, SCHEDULES[schedule], max_grad_norm)


def sgd(
    parameters: Iterable[torch.nn.Parameter],
    learning_rate: Positive,
    schedule: ScheduleName,
    max_grad_norm: Positive | None,
    momentum: NonNegative,
) -> GradientSteps:
    """Stochastic gradient descent with heavy-ball momentum (0 for none).

    Args as in `adam`.
    """
    weights = list(parameters)
    inner = torch.optim.SGD(weights, lr=learning_rate, momentum=momentum)
    return GradientSteps(inner, weights, learning_rate, SCHEDULES[schedule], max_grad_norm)
