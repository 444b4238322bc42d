"""Optimizer that takes no steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pgx.core.agent import State
from pgx.core.algorithm import Engine, Loss
from pgx.core.data import rows_of
from pgx.core.ranks import SINGLE_PROCESS, Ranks


class NoSteps:
    """Optimizer of a network that does not change, such as one without parameters."""

    taken = 0

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
