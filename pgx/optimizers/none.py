"""No steps at all."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pgx.types import State


class NoSteps:
    """For a network that a rule, or the lack of anything to learn, leaves as it is."""

    def anneal(self, progress: float) -> float:
        """No rate: NaN, which no log shows."""
        return math.nan

    @torch.no_grad()
    def descend(self, loss: Callable[[], Tensor]) -> Tensor:
        """loss(), and no step."""
        return loss()

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to restore."""
