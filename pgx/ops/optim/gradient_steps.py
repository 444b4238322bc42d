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
from pgx.core.tensor_tree import call_with_tensors, tensor_leaves
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
        """Return the direction, and the moments after this gradient; [P] each."""
        ...


class GradientSteps:
    """Steps of a network along the clipped gradient of a loss, at learning_rate * schedule(progress).

    A parameter that a loss does not depend on keeps its value and its moments.

    Args:
        network: network to optimize.
        transform: map from a gradient to a direction.
        learning_rate: before annealing, > 0.
        schedule: factor of the learning rate as a function of progress in [0, 1].
        max_grad_norm: bound on the 2-norm of the gradient over all parameters; None for no clipping.
        engine: runs the steps.
        ranks: the ranks over whose rows a loss is the mean.
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
        self.rate = weights.new_full((), learning_rate)  # annealed learning rate
        self.moments: Sequence[Tensor] = [torch.zeros_like(weights) for _ in range(transform.moments)]
        self.steps_taken = 0

    def anneal(self, progress: float) -> float:
        """Set and return the learning rate for this progress in [0, 1]."""
        rate = self.learning_rate * self.schedule(progress)
        self.rate.fill_(rate)
        return rate

    def step(self, loss: Loss, *data: Any) -> Tensor:
        """Take one step on loss(network, *data); return the loss before the step, detached scalar."""
        step = self.engine.bind(
            self.gradient_step.step, loss, self.network, data, self.rate, rows=row_count(data)
        )
        loss_before, *state = step(flatten(self.parameters), *self.moments)
        self._set_state(state)
        self.steps_taken += 1
        return loss_before

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """Take a step on each minibatch of rows; return the losses before them, [len(minibatches)]."""
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
        # The tensors of a checkpoint are on the CPU, and the network may be on a GPU.
        self.moments = [moment.to(self.rate.device) for moment in state["moments"]]


def row_count(data: tuple[Any, ...]) -> int | None:
    """Return the number of rows of the data of a loss; None if no tensor has rows."""
    return next((len(leaf) for leaf in tensor_leaves(data) if leaf.dim() > 0), None)


def rows_tensor(data: tuple[Any, ...], value: Tensor) -> Tensor:
    """Return a tensor with the rows of the data; without rows, the value of the loss as one row."""
    return next((leaf for leaf in tensor_leaves(data) if leaf.dim() > 0), value.detach()[None])


@dataclass(frozen=True)
class GradientStep:
    """Gradient step as a pure function of weights and moments."""

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
        """Compute `step` on some of the rows; index [b] int64."""
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
        """Compute one step.

        Args:
            loss: (network, *data) -> scalar.
            network: the module to evaluate with `weights`; its own weights are not used.
            data: arguments of the loss after the network.
            rate: learning rate, scalar.
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
        """Compute the loss and its clipped gradient, as means over the rows of all ranks. Args as in `step`.

        Returns:
            The loss, scalar; its clipped gradient [P]; and, only if the loss does not depend on all parameters, [P]
            bool, True for those on which it depends.
        """
        parts = [part.detach().requires_grad_() for part in split(weights, list(network.parameters()))]
        names = [name for name, _ in network.named_parameters()]
        value: Tensor = call_with_tensors(
            [(network, dict(zip(names, parts, strict=True)))], loss, network, *data
        )
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
        """Compute the change of the weights from a gradient.

        Args:
            found: all that `gradient` returns except the loss.
            rate, weights, moments: as in `step`.

        Returns:
            The change to subtract from the weights, and the moments after the step; [P] each.
        """
        gradient, *touched = found
        direction, moments_after = self.transform.direction(weights, gradient, moments)
        if not touched:
            return (rate * direction, *moments_after)
        unchanged = [torch.zeros_like(weights), *moments]
        return tuple(
            torch.where(touched[0], new, old)
            for new, old in zip((rate * direction, *moments_after), unchanged, strict=True)
        )


class SharedSteps:
    """Steps of shared weights without locks, each along the gradient at the local copy of a process.

    With the clipped gradient g of a loss at the copy θ', and shared moments s of the optimizer,

        (Δ, s) <- direction(g, s),    θ <- θ - α Δ,    θ' <- θ' - α Δ

    for RMSprop s <- δ s + (1 - δ) g², Δ = g / (√s + ε). θ and s are changed in place, element by element, so that steps
    of other processes between the copy and the step are kept. If two processes write an element of s at the same time,
    the gradient of one may be lost, which the source allows.

    Source: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3 and section 4,
    "Optimization", Shared RMSProp; Recht et al., "Hogwild!", 2011, for steps without locks.

    Args:
        local: steps of the copy, with its network, transform, learning rate and engine; its moments are not used.
        weights: θ [P], shared.
        moments: s, [P] each, shared.
    """

    def __init__(self, local: GradientSteps, weights: Tensor, moments: Sequence[Tensor]) -> None:
        self.local = local
        self.weights = weights
        self.moments = moments

    @property
    def steps_taken(self) -> int:
        """Number of steps of this process."""
        return self.local.steps_taken

    def anneal(self, progress: float) -> float:
        """Set and return the learning rate for this progress in [0, 1]."""
        return self.local.anneal(progress)

    def step(self, loss: Loss, *data: Any) -> Tensor:
        """Take one step of the weights and the copy; return the loss at the copy before, detached scalar."""
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
        # Eager: the moments are written shortly after they were read, with no lookup of a program in between.
        change, *moments = self.local.gradient_step.transformed(
            found, self.local.rate, self.weights, self.moments
        )
        self.weights.sub_(change)
        for shared, new in zip(self.moments, moments, strict=True):
            shared.copy_(new)
        assign(self.local.parameters, copy - change)

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """Take a step on each minibatch of rows; return the losses before them, [len(minibatches)]."""
        return torch.stack([self.step(loss, *rows_of(data, index)) for index in minibatches])

    def state_dict(self) -> State:
        return {"moments": [moment.clone() for moment in self.moments]}

    def load_state_dict(self, state: State) -> None:
        for shared, moment in zip(self.moments, state["moments"], strict=True):
            shared.copy_(moment)
