"""What acts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from pgx.core.networks import Critic, Distribution, Normalizer, Policy, RecurrentPolicy
from pgx.core.observations import History, Observations
from pgx.core.plain import State


class Act(NamedTuple):
    """What an agent did at N observations."""

    action: Tensor  # [N, ...] the policy's own
    executed: Tensor  # [N, ...] what the environment is given for it
    log_prob: Tensor  # [N] nats
    memory: Tensor | None  # [N, M] afterwards; None: the policy has none


@dataclass
class Agent:
    """What acts and what is learned: a policy, its critic, and the observation normaliser both look through."""

    policy: Policy
    critic: Critic
    normalizer: Normalizer

    def blank_memory(self, count: int, device: torch.device) -> Tensor | None:
        """The memory [count, M] of episodes that begin; None where the policy has none."""
        memory = self.policy.memory
        return None if memory is None else torch.zeros(count, memory.size, device=device)

    def observe(
        self, obs: Tensor, time: Tensor, action_mask: Tensor | None, memory: Tensor | None
    ) -> Observations:
        """N raw observations [N, ...] of one moment, as the networks see them."""
        return at_one_moment(self.normalizer.lens, obs, time, action_mask, memory)

    @torch.inference_mode()
    def act(self, obs: Observations, generator: torch.Generator) -> Act:
        """Sample actions at N observations."""
        distribution, memory = distribution_at(self.policy, obs)
        action = distribution.sample(generator)
        return Act(action, distribution.executed(action), distribution.log_prob(action), memory)

    @torch.inference_mode()
    def act_greedily(self, obs: Observations) -> Act:
        """Take the most probable actions at N observations."""
        distribution, memory = distribution_at(self.policy, obs)
        action = distribution.mode()
        return Act(action, distribution.executed(action), distribution.log_prob(action), memory)

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


def at_one_moment(
    lens: Callable[[Tensor], Tensor],
    obs: Tensor,
    time: Tensor,
    action_mask: Tensor | None,
    memory: Tensor | None,
) -> Observations:
    """N raw observations [N, ...] of one moment, as the networks see them through a lens."""
    features = lens(obs)
    if memory is None:
        return Observations(features, time, action_mask)
    n = features.shape[0]  # len() would make the number a constant of an exported policy
    never = torch.zeros(1, n, dtype=torch.bool, device=features.device)
    at = torch.arange(n, device=features.device)
    history = History(features.unsqueeze(0), never, memory, never, torch.zeros_like(at), at)
    return Observations(features, time, action_mask, history)


def distribution_at(policy: Policy, obs: Observations) -> tuple[Distribution, Tensor | None]:
    """The distributions at observations of one moment, and the memory [N, M] afterwards."""
    if policy.memory is None:
        return policy(obs), None
    return cast(RecurrentPolicy, policy).advance(obs)
