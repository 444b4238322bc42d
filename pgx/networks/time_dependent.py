"""A critic that sees the clock and nothing else."""

import torch
from torch import Tensor, nn

from pgx.core.data import Observations
from pgx.core.schema import Count
from pgx.core.specs import ActionSpec, ObsSpec


class TimeDependent(nn.Module):
    """V(t) = b[min(t, horizon - 1)], which starts at zero; t: steps of the episode before this one."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(horizon))

    def forward(self, obs: Observations) -> Tensor:
        return self.value[obs.time.clamp(max=len(self.value) - 1)]


def time_dependent_critic(
    obs: ObsSpec, action: ActionSpec, generator: torch.Generator, horizon: Count
) -> nn.Module:
    """A baseline for every step of the episode, the same in all states.

    Source: Peters and Schaal, "Reinforcement learning of motor skills with policy gradients", 2008: a baseline of its
    own for every time step of the episodic estimators.

    Args:
        obs, action, generator: nothing is read of them.
        horizon: how many numbers are kept; steps beyond it share the last one.
    """
    return TimeDependent(horizon)
