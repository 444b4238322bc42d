"""Gradient steps of a network, or of weights shared by several processes.

A step computes a gradient, clips it, transforms it to a direction, and moves by the annealed learning rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pgx.core.agent import State
from pgx.core.algorithm import Engine, Loss
from pgx.core.data import rows_of
from pgx.core.ranks import SINGLE_PROCESS, Ranks
from pgx.core.tensor_tree import leaves, substituted
from pgx.ops.optim.formulas import Schedule, clip_by_norm
from pgx.ops.params import assign, flatten, split


class GradientTransform(Protocol):
    """Map from a gradient to the direction of a step; a dataclass of numbers."""

    @property
    def moments(self) -> int:
        """Number of vectors kept between steps, initially 0."""
        ...

    def direction(
        self, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The direction, and the moments after this gradient; all [P]."""
        ...


class GradientSteps:
    """Steps of a network along the clipped gradient of a loss, at learning_rate * schedule(progress).

    A parameter that a loss does not depend on is left as it is, and so is all that is remembered of it.

    Args:
        network: what it steps.
        transform: turns a gradient into a direction.
        learning_rate: before annealing, > 0.
        schedule: factor of the learning rate as a function of progress in [0, 1].
        max_grad_norm: a longer gradient (2-norm over all parameters) is scaled down to it; None leaves it be.
        engine: runs the steps.
        ranks: who have the other rows of a loss, which is a mean over rows.
    """

    def __init__(
        self,
        network: nn.Module,
        transform: GradientTransform,
        learning_rate: float,
        schedule: Schedule,
        max_grad_norm: float | None,
        engine: Engine,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self.network = network
        self.parameters = list(network.parameters())
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.engine = engine
        self.gradient_step = GradientStep(transform, max_grad_norm, ranks)
        weights = flatten(self.parameters)
        self.rate = weights.new_full((), learning_rate)  # annealed
        self.moments: Sequence[Tensor] = [torch.zeros_like(weights) for _ in range(transform.moments)]
        self.steps_taken = 0

    def anneal(self, progress: float) -> float:
        """Set the learning rate for this progress in [0, 1]; returns it."""
        rate = self.learning_rate * self.schedule(progress)
        self.rate.fill_(rate)
        return rate

    def step(self, loss: Loss, *data: Any) -> Tensor:
        """One step down the gradient of loss(network, *data); returns the loss before the step, detached scalar."""
        step = self.engine.bind(
            self.gradient_step.step, loss, self.network, data, self.rate, rows=row_count(data)
        )
        loss_before, *state = step(flatten(self.parameters), *self.moments)
        self._set_state(state)
        self.steps_taken += 1
        return loss_before

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """A step for each minibatch of rows; returns the losses before them, [len(minibatches)]."""
        step = self.engine.bind(
            self.gradient_step.minibatch_step,
            loss,
            self.network,
            data,
            self.rate,
            rows=row_count(data),
            ragged=[0],
        )
        losses, state = step.scan(minibatches, (flatten(self.parameters), *self.moments))
        self._set_state(state)
        self.steps_taken += len(minibatches)
        return torch.stack(losses)

    def _set_state(self, state: Sequence[Tensor]) -> None:
        weights, *self.moments = state
        assign(self.parameters, weights)

    def state_dict(self) -> State:
        return {"moments": list(self.moments)}

    def load_state_dict(self, state: State) -> None:
        # A checkpoint is read onto the processor, wherever the network is.
        self.moments = [moment.to(self.rate.device) for moment in state["moments"]]


def row_count(data: tuple[Any, ...]) -> int | None:
    """How many rows the data of a loss have; None where they have none."""
    return next((len(leaf) for leaf in leaves(data) if leaf.dim() > 0), None)


def rows_tensor(data: tuple[Any, ...], value: Tensor) -> Tensor:
    """A tensor of the data with their rows; for data without any, the value of their loss as one."""
    return next((leaf for leaf in leaves(data) if leaf.dim() > 0), value.detach()[None])


@dataclass(frozen=True)
class GradientStep:
    """One step, as a pure function: from weights and moments to the loss before it and to new ones."""

    transform: GradientTransform
    max_grad_norm: float | None
    ranks: Ranks

    def minibatch_step(
        self,
        loss: Loss,
        network: nn.Module,
        data: tuple[Any, ...],
        rate: Tensor,
        index: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """The same as `step` for some of the rows; index [b] int64."""
        return self.step(loss, network, rows_of(data, index), rate, *state)

    def step(
        self,
        loss: Loss,
        network: nn.Module,
        data: tuple[Any, ...],
        rate: Tensor,
        weights: Tensor,
        *moments: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step.

        Args:
            loss: (network, *data) -> scalar.
            network: what is stepped; its own weights are not looked at.
            data: of the loss.
            rate: the learning rate, scalar.
            weights, moments: before the step, [P] each.

        Returns:
            The loss, scalar, and weights and moments after the step.
        """
        value, *found = self.gradient(loss, network, data, weights)
        change, *moments_after = self.transformed(found, rate, weights, moments)
        return (value, weights - change, *moments_after)

    def gradient(
        self, loss: Loss, network: nn.Module, data: tuple[Any, ...], weights: Tensor
    ) -> tuple[Tensor, ...]:
        """Where a step begins: means over the rows of all ranks. Args as in `step`.

        Returns:
            The loss, scalar; its clipped gradient [P]; and where it does not depend on all parameters: on which [P].
        """
        parts = [part.detach().requires_grad_() for part in split(weights, list(network.parameters()))]
        names = [name for name, _ in network.named_parameters()]
        value: Tensor = substituted([(network, dict(zip(names, parts, strict=True)))], loss, network, *data)
        found = torch.autograd.grad(value, parts, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parts, strict=True)]
        gradient = torch.cat([g.reshape(-1) for g in gradients])
        value, gradient = self.ranks.mean(rows_tensor(data, value), value.detach(), gradient)
        if self.max_grad_norm is not None:
            gradient = clip_by_norm(gradient, self.max_grad_norm)
        if all(g is not None for g in found):
            return value, gradient
        touched = [torch.full((p.numel(),), g is not None) for g, p in zip(found, parts, strict=True)]
        return value, gradient, torch.cat(touched).to(weights.device)

    def transformed(
        self, found: Sequence[Tensor], rate: Tensor, weights: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Where a step ends.

        Args:
            found: the gradient, and which parameters it is of where that is not all: what `gradient` returns.
            rate, weights, moments: as in `step`.

        Returns:
            What is taken off the weights, and the moments after the step; [P] each.
        """
        gradient, *touched = found
        direction, moments_after = self.transform.direction(weights, gradient, moments)
        if not touched:
            return (rate * direction, *moments_after)
        still = [torch.zeros_like(weights), *moments]
        return tuple(
            torch.where(touched[0], new, old)
            for new, old in zip((rate * direction, *moments_after), still, strict=True)
        )


class SharedSteps:
    """Steps of shared weights, each along the gradient at a copy of the process itself.

    With g the clipped gradient of a loss at the copy θ', and the optimizer's moments shared as well,

        (Δ, s) <- direction(g, s),    θ <- θ - α Δ,    θ' <- θ' - α Δ

    for RMSprop s <- δ s + (1 - δ) g², Δ = g / (√s + ε). θ and s are changed in place, number by number: what others
    take off θ between the copy and the step stays taken off. Moments that two processes write at the same moment may
    keep one's gradient and lose the other's, which the source allows.

    Source: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3 and section 4,
    "Optimization", Shared RMSProp; Recht et al., "Hogwild!", 2011, for steps without locks.

    Args:
        local: steps of the copy: its network, rule, learning rate and engine; its moments are not looked at.
        weights: θ [P], shared.
        moments: s, [P] each, shared.
    """

    def __init__(self, local: GradientSteps, weights: Tensor, moments: Sequence[Tensor]) -> None:
        self.local = local
        self.weights = weights
        self.moments = moments

    @property
    def steps_taken(self) -> int:
        """Steps of this process."""
        return self.local.steps_taken

    def anneal(self, progress: float) -> float:
        """Set the learning rate for this progress in [0, 1]; returns it."""
        return self.local.anneal(progress)

    def step(self, loss: Loss, *data: Any) -> Tensor:
        """One step of weights and copy; returns the loss at the copy before it, detached scalar."""
        local = self.local
        gradient = local.engine.bind(
            local.gradient_step.gradient, loss, local.network, data, rows=row_count(data)
        )
        copy = flatten(local.parameters)
        loss_before, *found = gradient(copy)
        self._apply(found, copy)
        local.steps_taken += 1
        return loss_before

    @torch.no_grad()
    def _apply(self, found: Sequence[Tensor], copy: Tensor) -> None:
        # As it is written: shortly after the moments were read they are written, with no program to look up between.
        change, *moments = self.local.gradient_step.transformed(
            found, self.local.rate, self.weights, self.moments
        )
        self.weights.sub_(change)
        for shared, new in zip(self.moments, moments, strict=True):
            shared.copy_(new)
        assign(self.local.parameters, copy - change)

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """A step for each minibatch of rows; returns the losses before them, [len(minibatches)]."""
        return torch.stack([self.step(loss, *rows_of(data, index)) for index in minibatches])

    def state_dict(self) -> State:
        return {"moments": [moment.clone() for moment in self.moments]}

    def load_state_dict(self, state: State) -> None:
        for shared, moment in zip(self.moments, state["moments"], strict=True):
            shared.copy_(moment)
