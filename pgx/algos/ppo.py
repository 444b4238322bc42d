"""Proximal policy optimization, clipped surrogate."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgx.estimates import gae_batch
from pgx.ops.losses import clipped_surrogate, clipped_value_loss, value_loss
from pgx.ops.stats import standardize
from pgx.regression import minibatch_conflicts
from pgx.schema import Count, Fraction, NonNegative, Positive, validate
from pgx.types import Agent, Batch, Critic, Metrics, Optimizer, Policy, Rollout, State


@dataclass
class PPO:
    """Several epochs of minibatch ascent on the clipped surrogate, the critic beside it.

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, eq. 7 and algorithm 1. Policy and
    critic have optimizers of their own, so the paper's value coefficient c1 is a ratio of learning rates here.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"optimizer", "critic_optimizer"})

    discount: Fraction  # gamma
    gae_lambda: Fraction  # lambda
    # To mean 0 and standard deviation 1, over the whole batch or over each minibatch.
    normalize_advantage: Literal["off", "batch", "minibatch"]
    clip_range: Positive  # epsilon: the ratio earns nothing beyond 1 +- epsilon
    epochs: Count  # passes over the batch
    minibatch_size: Count  # rows
    entropy_coefficient: NonNegative  # bonus per nat of entropy, in units of the advantage
    value_clip: (
        Positive | None
    )  # the critic earns nothing further than this from its old value; null: no clip
    target_kl: Positive | None  # nats: no epoch once mean KL(pi_old || pi_new) exceeds it; null: never stops

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
        self.generator = generator

    def conflicts(self, rollout_steps: int, num_envs: int) -> list[str]:
        return minibatch_conflicts(rollout_steps, num_envs, self.minibatch_size, "algo.minibatch_size")

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        return gae_batch(
            agent, rollout, self.discount, self.gae_lambda, normalize=self.normalize_advantage == "batch"
        )

    def update(self, agent: Agent, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rate = self.optimizer.anneal(progress)
        critic_rate = self.critic_optimizer.anneal(progress)
        with torch.no_grad():
            old = agent.policy(batch.obs)

        for epoch in range(1, self.epochs + 1):  # noqa: B007, how far it came is reported
            critic_losses = []
            for rows in batch.minibatches(self.minibatch_size, self.generator):
                self.optimizer.descend(partial(self._policy_loss, agent.policy, rows))
                critic_losses.append(
                    self.critic_optimizer.descend(partial(self._critic_loss, agent.critic, rows))
                )
            if self.target_kl is not None:
                with torch.no_grad():
                    kl = float(old.kl(agent.policy(batch.obs)).mean())
                if kl > self.target_kl:
                    break

        return {
            "epochs": float(epoch),
            "learning_rate": rate,
            "critic_loss": float(torch.stack(critic_losses).mean()),
            "critic_learning_rate": critic_rate,
        }

    def _policy_loss(self, policy: Policy, rows: Batch) -> Tensor:
        """-(L_clip + c S): the negative of eq. 9 without its value term."""
        distribution = policy(rows.obs)
        log_ratio = distribution.log_prob(rows.action) - rows.log_prob
        minibatch = self.normalize_advantage == "minibatch"
        advantage = standardize(rows.advantage) if minibatch else rows.advantage
        loss = -clipped_surrogate(log_ratio, advantage, self.clip_range)
        if self.entropy_coefficient > 0:
            loss = loss - self.entropy_coefficient * distribution.entropy().mean()
        return loss

    def _critic_loss(self, critic: Critic, rows: Batch) -> Tensor:
        value = critic(rows.obs)
        if self.value_clip is None:
            return value_loss(value, rows.value_target)
        return clipped_value_loss(value, rows.value, rows.value_target, self.value_clip)

    def state_dict(self) -> State:
        return {
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.generator.set_state(state["generator"])
