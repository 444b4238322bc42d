"""A critic that sees the clock and nothing else."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgx.core.data import Observations
from pgx.core.schema import Count, Validated
from pgx.core.specs import ActionSpec, ObsSpec


class TimeDependent(nn.Module):
    """V(t) = b[min(t, horizon - 1)], which starts at zero; t: steps of the episode before this one."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(horizon))

    def forward(self, obs: Observations) -> Tensor:
        return self.value[obs.time.clamp(max=len(self.value) - 1)]


@dataclass(frozen=True)
class TimeDependentCritic(Validated):
    """V(t): one value per time step of the episode, the same in all states.

    Source: Peters and Schaal, "Reinforcement learning of motor skills with policy gradients", 2008: a separate baseline
    for every time step of the episodic estimators.
    """

    horizon: Count  # number of values; later steps share the last one

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic; all arguments are unused."""
        return TimeDependent(self.horizon)
