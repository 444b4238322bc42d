"""No steps at all."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pgx.core.agent import State
from pgx.core.algorithm import Loss
from pgx.core.data import rows_of


class NoSteps:
    """For a network that a rule, or the lack of anything to learn, leaves as it is."""

    taken = 0

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def anneal(self, progress: float) -> float:
        """No rate: NaN, which no log shows."""
        return math.nan

    @torch.no_grad()
    def step(self, loss: Loss, *data: Any) -> Tensor:
        """The loss, and no step."""
        return loss(self.network, *data)

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """The losses of the minibatches, and no step."""
        return torch.stack([self.step(loss, *rows_of(data, index)) for index in minibatches])

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to restore."""
