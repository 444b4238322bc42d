"""Proximal policy optimization, clipped surrogate."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgx.algos.common.advantages import gae_batch
from pgx.algos.common.critic_fit import CRITIC_LOSS, minibatch_conflicts
from pgx.core.agent import Agent, Critic, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, NonNegative, Positive, check_fields
from pgx.ops.losses import clipped_surrogate, clipped_value_loss, value_loss
from pgx.ops.stats import standardize


@dataclass
class PPO:
    """Proximal policy optimization: several epochs of minibatch ascent on the clipped surrogate.

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, eq. 7 and algorithm 1. Policy and critic
    have separate optimizers, so that the paper's value coefficient c1 is a ratio of learning rates here.
    """

    uses: ClassVar[frozenset[Use]] = frozenset({"optimizer", "critic_optimizer", "ranks"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("epochs", "count", "passes over the batch before the rule stopped"),
        CRITIC_LOSS,
    )

    discount: Fraction = DEFAULT  # gamma
    gae_lambda: Fraction = DEFAULT  # lambda
    # To mean 0 and standard deviation 1, over the whole batch or over each minibatch.
    normalize_advantage: Literal["off", "batch", "minibatch"] = DEFAULT
    # epsilon: the objective gives no incentive to move the ratio beyond 1 +- epsilon
    clip_range: Positive = DEFAULT
    epochs: Count = DEFAULT  # passes over the batch
    minibatch_size: Count = DEFAULT  # rows
    recompute_advantages: bool = DEFAULT  # before every pass except the first, with the current critic
    entropy_coefficient: NonNegative = DEFAULT  # bonus per nat of entropy, in units of the advantage
    # Bound on the change of a value in an update, beyond which the loss gives no incentive; null: no bound.
    value_clip: Positive | None = DEFAULT
    # nats: stop once mean KL(pi_old || pi_new) after an epoch exceeds this; null: never
    target_kl: Positive | None = DEFAULT

    def __post_init__(self) -> None:
        check_fields(self)

    def conflicts(self, setting: Setting) -> list[str]:
        return minibatch_conflicts(setting, self.minibatch_size, "algo.minibatch_size")

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        return gae_batch(
            agent, rollout, self.discount, self.gae_lambda, normalize=self.normalize_advantage == "batch"
        )

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rates = learner.anneal(progress)
        with torch.no_grad():
            old = None if self.target_kl is None else agent.policy(batch.obs)

        for epoch in range(1, self.epochs + 1):
            if self.recompute_advantages and epoch > 1:
                batch = self.estimate(agent, rollout)
            minibatches = batch.minibatches(self.minibatch_size, learner.generator)
            # The networks are separate, so that the passes of policy and critic can run in parallel.
            critic_result = learner.engine.submit(
                learner.critic_optimizer.step_minibatches, self._critic_loss, (batch,), minibatches
            )
            learner.optimizer.step_minibatches(self._policy_loss, (batch,), minibatches)
            critic_losses = critic_result()
            if old is not None:
                with torch.no_grad():
                    kl = float(batch.mean(old.kl(agent.policy(batch.obs))))
                if self.target_kl is not None and kl > self.target_kl:
                    break

        return rates | {
            "epochs": float(epoch),
            "critic_loss": float(critic_losses.mean()),
        }

    def _policy_loss(self, policy: Policy, rows: Batch) -> Tensor:
        """Return -(L_clip + c S), the negative of eq. 9 without its value term."""
        distribution = policy(rows.obs)
        log_ratio = distribution.log_prob(rows.action) - rows.log_prob
        minibatch = self.normalize_advantage == "minibatch"
        advantage = standardize(rows.advantage, rows.mean) if minibatch else rows.advantage
        loss = -clipped_surrogate(log_ratio, advantage, self.clip_range)
        if self.entropy_coefficient > 0:
            loss = loss - self.entropy_coefficient * distribution.entropy().mean()
        return loss

    def _critic_loss(self, critic: Critic, rows: Batch) -> Tensor:
        value = critic(rows.obs)
        if self.value_clip is None:
            return value_loss(value, rows.value_target)
        return clipped_value_loss(value, rows.value, rows.value_target, self.value_clip)
