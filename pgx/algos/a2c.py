"""Advantage actor-critic, synchronous."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from pgx.estimates import gae_batch
from pgx.ops.losses import policy_gradient, value_loss
from pgx.schema import Fraction, NonNegative, validate
from pgx.types import Agent, Batch, Critic, Metrics, Optimizer, Policy, Rollout, State


@dataclass
class A2C:
    """One gradient step of policy and critic on each short rollout of all environments.

    Source: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3, with its actors
    stepped together and their gradients averaged. With gae_lambda = 1 the advantage is the paper's: rewards up to the
    end of the rollout, then the critic, minus V(s_t). Policy and critic have networks and optimizers of their own.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"optimizer", "critic_optimizer"})

    discount: Fraction  # gamma
    gae_lambda: Fraction  # lambda; 1 is the paper's n-step advantage
    normalize_advantage: bool  # to mean 0 and standard deviation 1 over the batch
    entropy_coefficient: NonNegative  # bonus per nat of entropy, in units of the advantage

    def __post_init__(self) -> None:
        validate(self)

    def setup(
        self,
        agent: Agent,
        optimizer: Optimizer | None,
        critic_optimizer: Optimizer | None,
        generator: torch.Generator,
    ) -> None:
        assert optimizer is not None and critic_optimizer is not None
        self.optimizer = optimizer
        self.critic_optimizer = critic_optimizer

    def conflicts(self, rollout_steps: int, num_envs: int) -> list[str]:
        return []

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        return gae_batch(agent, rollout, self.discount, self.gae_lambda, self.normalize_advantage)

    def update(self, agent: Agent, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rate = self.optimizer.anneal(progress)
        critic_rate = self.critic_optimizer.anneal(progress)
        self.optimizer.descend(partial(self._policy_loss, agent.policy, batch))
        critic_loss = self.critic_optimizer.descend(partial(self._critic_loss, agent.critic, batch))
        return {
            "learning_rate": rate,
            "critic_loss": float(critic_loss),
            "critic_learning_rate": critic_rate,
        }

    def _policy_loss(self, policy: Policy, batch: Batch) -> Tensor:
        distribution = policy(batch.obs)
        gain = policy_gradient(distribution.log_prob(batch.action), batch.advantage)
        return -(gain + self.entropy_coefficient * distribution.entropy().mean())

    def _critic_loss(self, critic: Critic, batch: Batch) -> Tensor:
        return value_loss(critic(batch.obs), batch.value_target)

    def state_dict(self) -> State:
        return {
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
