"""What crosses a folder: rollouts, batches, agents, distributions, optimizers and update rules.

Time comes first: `[T, N, ...]` is T steps of N environments, `[B, ...]` the flattened rows of a batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

Metrics = dict[str, float]
State = dict[str, Any]


@dataclass(frozen=True)
class Discrete:
    """Whole numbers 0..n-1."""

    n: int


@dataclass(frozen=True)
class MultiDiscrete:
    """Tuples of whole numbers, the i-th in 0..sizes[i]-1."""

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Continuous:
    """Real arrays of a shape; an action space has one dimension."""

    shape: tuple[int, ...]


ObsSpec = Continuous | Discrete
ActionSpec = Continuous | Discrete | MultiDiscrete


class Distribution(Protocol):
    """Action distributions at B observations, in coordinates of their own (logits; mean and log std).

    All densities are in nats. Nothing is validated per call: a network that gives NaN is found by the checks
    around an update, not by each of its thousands of evaluations.
    """

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        """The numbers that the network gives, each [B, ...]."""
        ...

    def detach(self) -> Self:
        """The same distributions, cut from the autograd graph."""
        ...

    def rows(self, index: Tensor) -> Self:
        """Those of some of the B observations; index [b] int64."""
        ...

    def sample(self, generator: torch.Generator) -> Tensor:
        """One action per row, [B, ...]."""
        ...

    def mode(self) -> Tensor:
        """The most probable action per row, [B, ...]."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """log pi(a | s), [B], nats."""
        ...

    def entropy(self) -> Tensor:
        """[B], nats."""
        ...

    def kl(self, other: Self) -> Tensor:
        """KL(self || other), [B], nats."""
        ...

    def fisher(self, tangent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The Fisher metric of each row in these coordinates, applied to a tangent of the same shapes."""
        ...


class Policy(Protocol):
    """A network from normalised observations [B, ...] to action distributions."""

    def __call__(self, obs: Tensor) -> Distribution: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


class Critic(Protocol):
    """A network from normalised observations [B, ...] to state values [B]."""

    def __call__(self, obs: Tensor) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


class Normalizer(Protocol):
    """A fixed map from raw observations to what the networks see; it moves between rollouts only."""

    def __call__(self, obs: Tensor) -> Tensor: ...
    def observe(self, obs: Tensor) -> None: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


class Optimizer(Protocol):
    """Descends a loss: gradient, clipping by norm, one step at the annealed learning rate."""

    def anneal(self, progress: float) -> float: ...
    def descend(self, loss: Callable[[], Tensor]) -> Tensor: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments, as they happened.

    `next_obs` is the true successor of each step, before any reset. `terminated` (the task ended: V = 0 there)
    and `truncated` (a time limit cut it: V goes on) never merge. `valid` is False for a row in which a
    vector environment only reset itself: no action was taken there, and nothing may learn from or count it.
    """

    obs: Tensor  # [T, N, ...] raw, as the environment gave it
    action: Tensor  # [T, N, ...] the policy's own sample, before clipping to the action space
    log_prob: Tensor  # [T, N] log mu(a | s) of the policy that acted, nats
    reward: Tensor  # [T, N]
    next_obs: Tensor  # [T, N, ...]
    terminated: Tensor  # [T, N] bool
    truncated: Tensor  # [T, N] bool
    valid: Tensor  # [T, N] bool

    def __post_init__(self) -> None:
        shape = self.log_prob.shape
        if len(shape) != 2:
            raise ValueError(f"Rollout.log_prob: expected shape [T, N], got {list(shape)}")
        for field in fields(self):
            value: Tensor = getattr(self, field.name)
            if value.shape[:2] != shape:
                raise ValueError(
                    f"Rollout.{field.name}: expected leading shape {list(shape)} (that of log_prob), "
                    f"got {list(value.shape)}"
                )
        if self.reward.shape != shape:
            raise ValueError(f"Rollout.reward: expected shape {list(shape)}, got {list(self.reward.shape)}")
        if self.next_obs.shape != self.obs.shape or self.next_obs.dtype != self.obs.dtype:
            raise ValueError("Rollout.next_obs: expected the shape and dtype of obs")
        for name in ("terminated", "truncated", "valid"):
            value = getattr(self, name)
            if value.dtype != torch.bool or value.shape != shape:
                raise ValueError(
                    f"Rollout.{name}: expected bool {list(shape)}, got {value.dtype} {list(value.shape)}"
                )
        for name in ("log_prob", "reward"):
            if not getattr(self, name).is_floating_point():
                raise ValueError(f"Rollout.{name}: expected floating point, got {getattr(self, name).dtype}")

    @property
    def steps(self) -> int:
        """Environment steps really taken: the number of valid rows."""
        return int(self.valid.sum())


@dataclass(frozen=True)
class Batch:
    """The valid rows of a rollout, flattened, with what an update rule learns from."""

    obs: Tensor  # [B, ...] normalised, as the networks see it
    action: Tensor  # [B, ...]
    log_prob: Tensor  # [B] of the behaviour policy, nats
    value: Tensor  # [B] the critic's estimate before the update
    advantage: Tensor  # [B]
    value_target: Tensor  # [B] what the critic regresses on

    def __len__(self) -> int:
        return int(self.log_prob.shape[0])

    def minibatches(self, size: int, generator: torch.Generator) -> Iterator["Batch"]:
        """The batch once, shuffled, in parts of nearly equal length.

        Reset rows make a batch slightly shorter than T * N; the parts then differ by one row instead of
        leaving a remnant of a few rows to take a step as large as the others.

        Args:
            size: rows aimed at per part; round(B / size) parts are made, at least one.
            generator: the stream that the shuffle is drawn from.
        """
        for index in self.minibatch_indices(size, generator):
            yield self.rows(index)

    def minibatch_indices(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The rows that `minibatches` would give, as indices [b] each: for what is stored beside the batch."""
        order = torch.randperm(len(self), generator=generator)
        return order.tensor_split(max(1, round(len(self) / size)))

    def rows(self, index: Tensor) -> "Batch":
        """Some of the rows; index [b] int64."""
        return Batch(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass
class Agent:
    """What acts and what is learned: a policy, its critic, and the observation normaliser both look through."""

    policy: Policy
    critic: Critic
    normalizer: Normalizer

    @torch.inference_mode()
    def act(self, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample actions at raw observations [N, ...]; returns (action [N, ...], log_prob [N] in nats)."""
        distribution = self.policy(self.normalizer(obs))
        action = distribution.sample(generator)
        return action, distribution.log_prob(action)

    @torch.inference_mode()
    def best_action(self, obs: Tensor) -> Tensor:
        """The most probable actions [N, ...] at raw observations [N, ...]."""
        return self.policy(self.normalizer(obs)).mode()

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


class Algorithm(Protocol):
    """An update rule. Its dataclass fields are its hyperparameters and the keys of its YAML file."""

    # Which of the groups "optimizer" and "critic_optimizer" it takes steps with.
    uses: ClassVar[frozenset[str]]

    def setup(
        self,
        agent: Agent,
        optimizer: Optimizer | None,
        critic_optimizer: Optimizer | None,
        generator: torch.Generator,
    ) -> None:
        """Take hold of what the rule steps with; called once, before the first update or load_state_dict."""
        ...

    def conflicts(self, rollout_steps: int, num_envs: int) -> list[str]:
        """What the rule cannot do with such rollouts, in words with the arithmetic; empty when all is well."""
        ...

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        """The batch that the rule learns from: its advantages and value targets. Changes nothing."""
        ...

    def update(self, agent: Agent, rollout: Rollout, progress: float) -> Metrics:
        """One iteration of the rule; `progress` in [0, 1] is the share of the step budget used so far."""
        ...

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...
