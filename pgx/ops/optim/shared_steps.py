"""Gradient steps of parameters that several processes step at once, without locks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgx.core.agent import State
from pgx.core.algorithm import Loss
from pgx.core.data import rows_of
from pgx.ops.optim.gradient_steps import GradientSteps, count_rows
from pgx.ops.params import assign, flatten


class SharedSteps:
    """Steps of shared weights, each along the gradient at a copy of one's own.

    With g the clipped gradient of a loss at the copy θ', and the optimizer's moments shared as well,

        (Δ, s) <- direction(g, s),    θ <- θ - α Δ,    θ' <- θ' - α Δ

    for RMSprop s <- δ s + (1 - δ) g², Δ = g / (√s + ε). θ and s are changed in place, number by number: what others
    take off θ between the copy and the step stays taken off. Moments that two processes write at the same moment may
    keep one's gradient and lose the other's, which the source allows.

    Source: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3 and section 4,
    "Optimization", Shared RMSProp; Recht et al., "Hogwild!", 2011, for steps without locks.

    Args:
        own: steps of the copy: its network, rule, learning rate and engine; its moments are not looked at.
        weights: θ [P], shared.
        moments: s, [P] each, shared.
    """

    def __init__(self, own: GradientSteps, weights: Tensor, moments: Sequence[Tensor]) -> None:
        self.own = own
        self.weights = weights
        self.moments = moments

    @property
    def taken(self) -> int:
        """Steps of this process."""
        return self.own.taken

    def anneal(self, progress: float) -> float:
        """Set the learning rate for this progress in [0, 1]; returns it."""
        return self.own.anneal(progress)

    def step(self, loss: Loss, *data: Any) -> Tensor:
        """One step of weights and copy; returns the loss at the copy before it, detached scalar."""
        own = self.own
        gradient = own.engine.bind(own.gradient_step.gradient, loss, own.network, data, rows=count_rows(data))
        copy = flatten(own.parameters)
        loss_before, *found = gradient(copy)
        self._descend(found, copy)
        own.taken += 1
        return loss_before

    @torch.no_grad()
    def _descend(self, found: Sequence[Tensor], copy: Tensor) -> None:
        # As it is written: shortly after the moments were read they are written, with no program to look up between.
        change, *moments = self.own.gradient_step.descent(found, self.own.rate, self.weights, self.moments)
        self.weights.sub_(change)
        for shared, new in zip(self.moments, moments, strict=True):
            shared.copy_(new)
        assign(self.own.parameters, copy - change)

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """A step for each minibatch of rows; returns the losses before them, [len(minibatches)]."""
        return torch.stack([self.step(loss, *rows_of(data, index)) for index in minibatches])

    def state_dict(self) -> State:
        return {"moments": [moment.clone() for moment in self.moments]}

    def load_state_dict(self, state: State) -> None:
        for shared, moment in zip(self.moments, state["moments"], strict=True):
            shared.copy_(moment)
