"""Mirror descent policy optimization, on-policy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pgx.algos.common.advantages import gae_batch
from pgx.algos.common.critic_fit import (
    CRITIC_LOSS,
    critic_minibatch_conflicts,
    fit_critic,
    minibatch_conflicts,
)
from pgx.core.agent import Agent, Distribution, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, Index, check_fields
from pgx.ops.losses import kl_penalized_surrogate
from pgx.ops.optim.formulas import linear_schedule

# Lower bound on t_k = 1 - progress, which reaches 0 at the end of training. It bounds the penalty by 1000 per nat.
STEP_SIZE_MIN = 1e-3


@dataclass
class MDPO:
    """Mirror descent policy optimization: a few gradient steps on the surrogate minus KL(pi || pi_k) / t_k.

    Source: Tomar et al., "Mirror descent policy optimization", 2020 (arXiv:2005.09814), section 4.1, on-policy
    MDPO. The KL is that of mirror descent, KL(pi || pi_k), the reverse of the KL in TRPO and PPO.
    """

    uses: ClassVar[frozenset[Use]] = frozenset({"optimizer", "critic_optimizer", "ranks"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "step_size",
            "nat/advantage",
            "t_k of mirror descent: the KL penalty of this update has coefficient 1 / t_k",
        ),
        CRITIC_LOSS,
    )

    discount: Fraction = DEFAULT  # gamma
    gae_lambda: Fraction = DEFAULT  # lambda
    normalize_advantage: bool = DEFAULT  # to mean 0 and standard deviation 1 over the batch
    steps: Count = DEFAULT  # m, gradient steps of the policy per update; with 1 the KL has no effect
    minibatch_size: Count | None = DEFAULT  # rows in a gradient step of the policy; null: the whole batch
    critic_epochs: Index = DEFAULT  # passes of regression over the batch
    critic_minibatch_size: Count = DEFAULT  # rows

    def __post_init__(self) -> None:
        check_fields(self)

    def conflicts(self, setting: Setting) -> list[str]:
        found = critic_minibatch_conflicts(setting, self.critic_minibatch_size)
        if self.minibatch_size is not None:
            found += minibatch_conflicts(setting, self.minibatch_size, "algo.minibatch_size")
        return found

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        return gae_batch(agent, rollout, self.discount, self.gae_lambda, self.normalize_advantage)

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rates = learner.anneal(progress)
        step_size = max(linear_schedule(progress), STEP_SIZE_MIN)  # t_k
        with torch.no_grad():
            old = agent.policy(batch.obs)  # pi_k

        data = batch, old, torch.tensor(step_size)
        if self.minibatch_size is None:
            for _ in range(self.steps):
                learner.optimizer.step(self._policy_loss, *data)
        else:
            learner.optimizer.step_minibatches(
                self._policy_loss, data, self._minibatches(batch, learner.generator)
            )

        fit = fit_critic(batch, learner, self.critic_epochs, self.critic_minibatch_size)
        return {"step_size": step_size} | rates | fit

    def _minibatches(self, batch: Batch, generator: torch.Generator) -> list[Tensor]:
        """Return the rows of each gradient step; every pass over the batch is shuffled."""
        assert self.minibatch_size is not None
        minibatches: list[Tensor] = []
        while len(minibatches) < self.steps:
            minibatches += batch.minibatches(self.minibatch_size, generator)
        return minibatches[: self.steps]

    def _policy_loss(self, policy: Policy, rows: Batch, old: Distribution, step_size: Tensor) -> Tensor:
        """Return -Ψ, the negative of the objective that mirror descent maximizes in iteration k."""
        new = policy(rows.obs)
        log_ratio = new.log_prob(rows.action) - rows.log_prob
        return -kl_penalized_surrogate(log_ratio, rows.advantage, new.kl(old), 1 / step_size)
