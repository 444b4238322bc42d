"""Policy with a second head for state values."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from pgx.core.agent import Distribution, RecurrentState
from pgx.core.data import Observations
from pgx.core.defaults import DEFAULT
from pgx.core.schema import Count, Positive, Validated
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.networks.heads import ContinuousHead, LogStd, policy_for
from pgx.networks.mlp import Activation, linear_layer, trunk


class TwoHeaded(nn.Module):
    """Policy pi(a|s) = actor(trunk(s)) with values V(s) = value_head(trunk(s)).

    Args:
        trunk: network from features [B, ...] to [B, W].
        actor: policy whose features are the outputs of the trunk.
        value_head: layer from [B, W] to [B, 1].
    """

    recurrent_state: RecurrentState | None = None

    def __init__(self, trunk: nn.Module, actor: nn.Module, value_head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.actor = actor
        self.value_head = value_head

    def forward(self, obs: Observations) -> Distribution:
        distribution: Distribution = self.actor(replace(obs, features=self.trunk(obs.features)))
        return distribution

    def value(self, obs: Observations) -> Tensor:
        """Return V(s), [B]."""
        value: Tensor = self.value_head(self.trunk(obs.features)).squeeze(-1)
        return value

    def value_detached(self, obs: Observations) -> Tensor:
        """Return V(s), [B], with gradients that reach the value head alone."""
        value: Tensor = self.value_head(self.trunk(obs.features).detach()).squeeze(-1)
        return value


@dataclass(frozen=True)
class TwoHeadedPolicy(Validated):
    """Perceptron policy with a value head on its last hidden layer.

    Its actions are those of `MLPPolicy` from the same generator: the value head's weights are drawn last.
    """

    config_file: ClassVar[str] = "policy/two_headed"

    hidden: list[Count] = DEFAULT  # widths of the hidden layers
    activation: Activation = DEFAULT  # between layers
    hidden_gain: Positive = DEFAULT  # scale of the orthogonal matrices of hidden layers
    output_gain: Positive = DEFAULT  # scale of the action head's orthogonal matrix
    value_gain: Positive = DEFAULT  # scale of the value head's orthogonal matrix
    log_std_init: LogStd = DEFAULT  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead = DEFAULT  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with initial weights drawn from the generator."""
        body, width = trunk(obs, self.hidden, self.activation, self.hidden_gain, generator)

        def head(outputs: int) -> nn.Linear:
            return linear_layer(width, outputs, self.output_gain, generator)

        actor = policy_for(action, head, self.log_std_init, self.continuous)
        return TwoHeaded(body, actor, linear_layer(width, 1, self.value_gain, generator))
