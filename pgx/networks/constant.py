"""The critic that knows nothing."""

import torch
from torch import Tensor, nn

from pgx.core.observations import Observations
from pgx.core.specs import ActionSpec, ObsSpec


class Zero(nn.Module):
    """V(s) = 0, without parameters: advantages are then returns, and nothing is bootstrapped."""

    def forward(self, obs: Observations) -> Tensor:
        return obs.time.new_zeros(obs.time.shape, dtype=torch.get_default_dtype())


def no_critic(obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
    """V(s) = 0, whatever the environment."""
    return Zero()
