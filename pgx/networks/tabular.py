"""Policies and critics that are tables, and critics that are functions of the time step alone."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pgx.core.data import Observations
from pgx.core.defaults import DEFAULT
from pgx.core.errors import UserError
from pgx.core.schema import Count, Validated
from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.networks.heads import CategoricalPolicy, MultiCategoricalPolicy, ValueFunction


class Zero(nn.Module):
    """Critic V(s) = 0 without parameters; advantages are returns, and nothing is bootstrapped."""

    def forward(self, obs: Observations) -> Tensor:
        return obs.time.new_zeros(obs.time.shape, dtype=torch.get_default_dtype())


@dataclass(frozen=True)
class NoCritic:
    """Spec of the critic V(s) = 0."""

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic; all arguments are unused."""
        return Zero()


class ParameterTable(nn.Module):
    """Map from s to row s of theta [S, K], initially 0."""

    def __init__(self, observations: int, outputs: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(observations, outputs))

    def forward(self, obs: Tensor) -> Tensor:
        return self.theta[obs]


@dataclass(frozen=True)
class TabularPolicy:
    """pi(a|s) = softmax(theta[s])_a, initially uniform; one softmax per component of a MultiDiscrete action.

    theta is [S, A] for Discrete actions, [S, K_1 + ... + K_m] for MultiDiscrete ones.

    Source: Agarwal, Kakade, Lee and Mahajan, "On the theory of policy gradient methods: optimality, approximation, and
    distribution shift", 2021: the softmax parametrisation.
    """

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy; the generator is unused.

        Raises:
            UserError: the observations are not Discrete, or the actions are continuous.
        """
        states = _states("policy", obs)
        match action:
            case Discrete(n):
                return CategoricalPolicy(ParameterTable(states, n))
            case MultiDiscrete(sizes):
                return MultiCategoricalPolicy(ParameterTable(states, sum(sizes)), sizes)
        raise UserError(
            f"policy=tabular: needs discrete actions, got {_shown(action)}; policy=linear or mlp takes these"
        )


@dataclass(frozen=True)
class TabularCritic:
    """V(s) = theta[s], initially 0."""

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic; action space and generator are unused.

        Raises:
            UserError: the observations are not Discrete.
        """
        return ValueFunction(ParameterTable(_states("critic", obs), 1))


def _states(section: str, obs: ObsSpec) -> int:
    if isinstance(obs, Discrete):
        return obs.n
    raise UserError(
        f"{section}=tabular: needs discrete observations, got {_shown(obs)}; {section}=linear or mlp takes these"
    )


def _shown(spec: Continuous | Image) -> str:
    kind = "real numbers" if isinstance(spec, Continuous) else "pixels"
    return f"arrays of {kind} of shape {list(spec.shape)}"


class TimeDependent(nn.Module):
    """Critic V(t) = b[min(t, horizon - 1)], b initially 0; t: steps of the episode before this one."""

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

    config_file: ClassVar[str] = "critic/time_dependent"

    horizon: Count = DEFAULT  # number of values; later steps share the last one

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic; all arguments are unused."""
        return TimeDependent(self.horizon)
