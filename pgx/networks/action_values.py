"""Critic with state values V(s) and action values Q(s, a)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pgx.core.data import Observations
from pgx.core.defaults import DEFAULT
from pgx.core.schema import Count, Positive, Validated
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec
from pgx.networks.heads import ValueFunction
from pgx.networks.mlp import Activation, OneHot, encoder, perceptron


class GatheredActionValue(nn.Module):
    """Q(s, a): output a of a network of the state; actions [B] int64."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        outputs: Tensor = self.net(features)
        return outputs.gather(-1, action.unsqueeze(-1)).squeeze(-1)


class JoinedActionValue(nn.Module):
    """Q(s, a): network of the concatenated state and action; actions [B, m].

    Args:
        encode_obs: map from features [B, ...] to vectors.
        encode_action: map from actions to vectors.
        net: network from both vectors, concatenated in this order, to [B, 1].
    """

    def __init__(self, encode_obs: nn.Module, encode_action: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.encode_obs = encode_obs
        self.encode_action = encode_action
        self.net = net

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        joined = torch.cat([self.encode_obs(features), self.encode_action(action)], -1)
        value: Tensor = self.net(joined).squeeze(-1)
        return value


class OneHots(nn.Module):
    """Map from tuples of integers [B, m], the i-th in 0..sizes[i]-1, to concatenated unit vectors [B, sum(sizes)]."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(OneHot(n) for n in sizes)

    def forward(self, action: Tensor) -> Tensor:
        return torch.cat([one_hot(a) for one_hot, a in zip(self.parts, action.unbind(-1), strict=True)], -1)


class StateAndActionValue(nn.Module):
    """Critic of two networks without common weights: V(s) by calling it, Q(s, a) by `action_value`."""

    def __init__(self, state: nn.Module, action: nn.Module) -> None:
        super().__init__()
        self.state = state
        self.action = action

    def forward(self, obs: Observations) -> Tensor:
        value: Tensor = self.state(obs)
        return value

    def action_value(self, obs: Observations, action: Tensor) -> Tensor:
        """Return Q(s, a), [B]."""
        value: Tensor = self.action(obs.features, action)
        return value


@dataclass(frozen=True)
class QCritic(Validated):
    """Critic V(s) and Q(s, a): two perceptrons of the same hidden layers.

    Discrete actions: Q has one output per action. MultiDiscrete actions: their unit vectors are appended to the
    observation. Continuous actions: their numbers are appended, as the policy sampled them.

    Fields as in `pgx.networks.mlp.MLPPolicy`.
    """

    config_file: ClassVar[str] = "critic/q"

    hidden: list[Count] = DEFAULT
    activation: Activation = DEFAULT
    hidden_gain: Positive = DEFAULT
    output_gain: Positive = DEFAULT

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with initial weights drawn from the generator."""

        def net(inputs: ObsSpec, outputs: int) -> nn.Sequential:
            return perceptron(
                inputs,
                outputs,
                self.hidden,
                self.activation,
                self.hidden_gain,
                self.output_gain,
                generator,
            )

        def joined(encode_action: nn.Module, action_width: int) -> nn.Module:
            layers, width = encoder(obs)
            return JoinedActionValue(
                nn.Sequential(*layers), encode_action, net(Continuous((width + action_width,)), 1)
            )

        state = ValueFunction(net(obs, 1))
        match action:
            case Discrete(n):
                return StateAndActionValue(state, GatheredActionValue(net(obs, n)))
            case MultiDiscrete(sizes):
                return StateAndActionValue(state, joined(OneHots(sizes), sum(sizes)))
            case Continuous((actions,)):
                return StateAndActionValue(state, joined(nn.Identity(), actions))
        raise ValueError(f"there is no action value for {action}")
