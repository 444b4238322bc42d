"""Agents: protocols of policies, critics, normalizers and their specs, and the Agent that combines them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, cast, runtime_checkable

import torch
from torch import Tensor, nn

from pgx.core.data import History, Observations
from pgx.core.metrics import Metric
from pgx.core.specs import ActionSpec, ObsSpec

Metrics = dict[str, float]
State = dict[str, Any]


@dataclass(frozen=True)
class RecurrentState:
    """Size of a policy's recurrent state, and how rollouts are cut into sequences to train it."""

    size: int  # M, numbers of the recurrent state
    sequence_length: int  # trained steps of a sequence
    burn_in: int  # steps before them that only recompute the state


class Distribution(Protocol):
    """Action distributions at B observations, in their parameters (logits; mean and log std).

    All densities are in nats. Calls do not validate: NaN is found by the checks around an update, not in each of its
    thousands of evaluations.
    """

    @property
    def params(self) -> tuple[Tensor, ...]:
        """Parameters, the outputs of the network, each [B, ...]."""
        ...

    def detach(self) -> Self:
        """Return the distributions without autograd graph."""
        ...

    def rows(self, index: Tensor) -> Self:
        """Return the distributions at some of the observations; index [b] int64."""
        ...

    def noise(self, steps: int, generator: torch.Generator) -> Tensor:
        """Draw the noise for samples of several steps, [steps, B, ...]; of the parameters only shapes are used."""
        ...

    def sampled(self, noise: Tensor) -> Tensor:
        """Return one action per row, [B, ...], computed from the noise [B, ...] of a step."""
        ...

    def sample(self, generator: torch.Generator) -> Tensor:
        """Sample one action per row, [B, ...]."""
        ...

    def mode(self) -> Tensor:
        """Return the most probable action per row, [B, ...]."""
        ...

    def executed(self, action: Tensor) -> Tensor:
        """Return the actions that the environment executes, [B, ...]: equal, or their image if squashed."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log pi(a | s), [B], nats."""
        ...

    def entropy(self) -> Tensor:
        """Return the entropies, [B], nats."""
        ...

    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other), [B], nats."""
        ...

    def fisher(self, tangent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Apply the Fisher metric of each row, in these parameters, to a tangent with their shapes."""
        ...


class Policy(Protocol):
    """Network from observations to action distributions. Its parts may report metrics (`Reporting`)."""

    recurrent_state: RecurrentState | None  # None: a feed-forward policy

    def __call__(self, obs: Observations) -> Distribution: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


@runtime_checkable
class Reporting(Protocol):
    """Part of a policy that reports metrics after each measured update."""

    metrics: tuple[Metric, ...]  # definitions of what it reports

    def report(self) -> Metrics:
        """Return the metrics by key."""
        ...


def policy_metrics(policy: Policy) -> tuple[Metric, ...]:
    """Return the definitions of the metrics that the parts of a policy report."""
    return tuple(
        metric for part in policy.modules() if isinstance(part, Reporting) for metric in part.metrics
    )


def policy_report(policy: Policy) -> Metrics:
    """Return the metrics that the parts of a policy report."""
    return {
        key: value
        for part in policy.modules()
        if isinstance(part, Reporting)
        for key, value in part.report().items()
    }


class RecurrentPolicy(Policy, Protocol):
    """Policy with a recurrent state."""

    def advance(self, obs: Observations) -> tuple[Distribution, Tensor]:
        """Return the distributions, and the recurrent state [S, M] after the last step of each sequence."""
        ...


class ValueHeadPolicy(Policy, Protocol):
    """Policy with a second head, which estimates state values."""

    def value(self, obs: Observations) -> Tensor:
        """Return V(s), [B]."""
        ...

    def value_detached(self, obs: Observations) -> Tensor:
        """Return V(s), [B], with gradients of the value head only."""
        ...


class Critic(Protocol):
    """Network from observations to state values [B]."""

    def __call__(self, obs: Observations) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


class ActionValueCritic(Critic, Protocol):
    """Critic that also estimates action values."""

    def action_value(self, obs: Observations, action: Tensor) -> Tensor:
        """Return Q(s, a), [B]; action [B, ...] as the policy sampled it."""
        ...


class PolicySpec(Protocol):
    """Description of a policy network without its environment: a picklable dataclass of plain values."""

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return a policy with initial weights drawn from the generator."""
        ...


class CriticSpec(Protocol):
    """Description of a critic network without its environment: a picklable dataclass of plain values."""

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return a critic with initial weights drawn from the generator."""
        ...


class Normalizer(Protocol):
    """Map from raw observations to features of the networks. It changes between rollouts only."""

    @property
    def normalize_fn(self) -> Callable[[Tensor], Tensor]:
        """Return the map: a dataclass of numbers and tensors, which change in place with the statistics."""
        ...

    @property
    def count(self) -> int | None:
        """Number of observations in the statistics; None: there are no statistics."""
        ...

    def __call__(self, obs: Tensor) -> Tensor: ...
    def observe(self, obs: Tensor) -> None:
        """Update the statistics with the observations [B, ...] of a finished rollout: merge(moments_of(obs))."""
        ...

    def moments_of(self, obs: Tensor) -> State:
        """Return the moments of observations [B, ...] as tensors, for `merge`. Changes nothing."""
        ...

    def merge(self, moments: State) -> None: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


class Act(NamedTuple):
    """Actions of an agent at N observations."""

    action: Tensor  # [N, ...] as the policy sampled it
    executed: Tensor  # [N, ...] as the environment executes it
    log_prob: Tensor  # [N] nats
    recurrent_state: Tensor | None  # [N, M] after the step; None: a feed-forward policy


@dataclass
class Agent:
    """Agent: policy, critic and the observation normalizer that both use."""

    policy: Policy
    critic: Critic
    normalizer: Normalizer

    def initial_recurrent_state(self, count: int, device: torch.device) -> Tensor | None:
        """Return the recurrent states [count, M] of episodes that begin: zeros; None for a feed-forward policy."""
        recurrent_state = self.policy.recurrent_state
        return None if recurrent_state is None else torch.zeros(count, recurrent_state.size, device=device)

    def observe(
        self, obs: Tensor, time: Tensor, action_mask: Tensor | None, recurrent_state: Tensor | None
    ) -> Observations:
        """Return N raw observations [N, ...] of one time step in the form that networks take."""
        return step_observations(self.normalizer.normalize_fn, obs, time, action_mask, recurrent_state)

    @torch.inference_mode()
    def act(self, obs: Observations, generator: torch.Generator) -> Act:
        """Sample actions at N observations."""
        distribution, recurrent_state = distribution_at(self.policy, obs)
        action = distribution.sample(generator)
        return Act(action, distribution.executed(action), distribution.log_prob(action), recurrent_state)

    @torch.inference_mode()
    def act_greedily(self, obs: Observations) -> Act:
        """Take the most probable actions at N observations."""
        distribution, recurrent_state = distribution_at(self.policy, obs)
        action = distribution.mode()
        return Act(action, distribution.executed(action), distribution.log_prob(action), recurrent_state)

    def state_dict(self) -> State:
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "normalizer": self.normalizer.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.normalizer.load_state_dict(state["normalizer"])


def step_observations(
    normalize_fn: Callable[[Tensor], Tensor],
    obs: Tensor,
    time: Tensor,
    action_mask: Tensor | None,
    recurrent_state: Tensor | None,
) -> Observations:
    """Return N raw observations [N, ...] of one time step in the form that networks take."""
    features = normalize_fn(obs)
    if recurrent_state is None:
        return Observations(features, time, action_mask)
    n = features.shape[0]  # len() would make the number a constant of an exported policy
    never = torch.zeros(1, n, dtype=torch.bool, device=features.device)
    at = torch.arange(n, device=features.device)
    history = History(features.unsqueeze(0), never, recurrent_state, never, torch.zeros_like(at), at)
    return Observations(features, time, action_mask, history)


def distribution_at(policy: Policy, obs: Observations) -> tuple[Distribution, Tensor | None]:
    """Return the distributions at observations of one time step, and the next recurrent state [N, M]."""
    if policy.recurrent_state is None:
        return policy(obs), None
    return cast(RecurrentPolicy, policy).advance(obs)
