"""Policies, critics and what they look through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from pgx.core.observations import Observations
from pgx.core.plain import State


@dataclass(frozen=True)
class Memory:
    """How a policy with memory wants its experience cut."""

    size: int  # M, numbers that it carries from one step to the next
    sequence_length: int  # steps of a stretch that are learned from
    burn_in: int  # steps before them that only warm the memory up


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

    def noise(self, steps: int, generator: torch.Generator) -> Tensor:
        """What the samples of so many steps are made of, [steps, B, ...]; of these coordinates only shape counts."""
        ...

    def sampled(self, noise: Tensor) -> Tensor:
        """One action per row, [B, ...], from the noise [B, ...] of a step."""
        ...

    def sample(self, generator: torch.Generator) -> Tensor:
        """One action per row, [B, ...], from noise drawn now."""
        ...

    def mode(self) -> Tensor:
        """The most probable action per row, [B, ...]."""
        ...

    def executed(self, action: Tensor) -> Tensor:
        """What the environment is given for these actions, [B, ...]: themselves, but where a map lies between."""
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
    """A network from observations to action distributions."""

    memory: Memory | None  # None: it answers to each observation by itself

    def __call__(self, obs: Observations) -> Distribution: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


class RecurrentPolicy(Policy, Protocol):
    """A policy with a memory."""

    def advance(self, obs: Observations) -> tuple[Distribution, Tensor]:
        """The distributions, and the memory [S, M] after the last step of every stretch of obs.history."""
        ...


class ValueHeadPolicy(Policy, Protocol):
    """A policy that values states as well, with a head on the network of its actions."""

    def value(self, obs: Observations) -> Tensor:
        """V(s), [B]."""
        ...

    def value_detached(self, obs: Observations) -> Tensor:
        """V(s), [B], of which a gradient reaches the value head alone."""
        ...


class Critic(Protocol):
    """A network from observations to state values [B]."""

    def __call__(self, obs: Observations) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


class ActionValueCritic(Critic, Protocol):
    """A critic that values actions too."""

    def action_value(self, obs: Observations, action: Tensor) -> Tensor:
        """Q(s, a), [B]; action [B, ...] as the policy sampled it."""
        ...


class Normalizer(Protocol):
    """A fixed map from raw observations to what the networks see; it moves between rollouts only."""

    @property
    def lens(self) -> Callable[[Tensor], Tensor]:
        """The map: a dataclass of tensors, rewritten in place when the normaliser moves, and numbers."""
        ...

    @property
    def seen(self) -> int | None:
        """Observations that the statistics are of; None: there are no statistics."""
        ...

    def __call__(self, obs: Tensor) -> Tensor: ...
    def observe(self, obs: Tensor) -> None:
        """Learn from the observations [B, ...] of a finished rollout: merge(moments_of(obs))."""
        ...

    def moments_of(self, obs: Tensor) -> State:
        """What there is to learn from observations [B, ...], for whoever is to learn it: tensors. Changes nothing."""
        ...

    def merge(self, moments: State) -> None: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...
