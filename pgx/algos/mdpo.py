"""Mirror descent policy optimization, on-policy."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from pgx.estimates import gae_batch
from pgx.ops.losses import kl_penalized_surrogate
from pgx.ops.schedules import linear
from pgx.regression import critic_minibatch_conflicts, fit_critic, minibatch_conflicts
from pgx.schema import Count, Fraction, Index, validate
from pgx.types import Agent, Batch, Distribution, Learner, Metrics, Policy, Rollout, Setting, Use

# t_k = 1 - progress reaches 0 at the end of training; held at this the penalty stays at most 1000 per nat.
STEP_SIZE_MIN = 1e-3


@dataclass
class MDPO:
    """A few gradient steps of each mirror descent problem: the surrogate less KL(pi || pi_k) / t_k.

    Source: Tomar et al., "Mirror descent policy optimization", 2020 (arXiv:2005.09814), section 4.1, on-policy
    MDPO. The KL is that of mirror descent, KL(pi || pi_k): the reverse of the one in TRPO and PPO.
    """

    uses: ClassVar[frozenset[Use]] = frozenset({"optimizer", "critic_optimizer"})

    discount: Fraction  # gamma
    gae_lambda: Fraction  # lambda
    normalize_advantage: bool  # to mean 0 and standard deviation 1 over the batch
    steps: Count  # m, gradient steps of the policy per update; with 1 the KL has no effect
    minibatch_size: Count | None  # rows in a gradient step of the policy; null: the whole batch
    critic_epochs: Index  # passes of regression over the batch
    critic_minibatch_size: Count  # rows

    def __post_init__(self) -> None:
        validate(self)

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
        step_size = max(linear(progress), STEP_SIZE_MIN)  # t_k
        with torch.no_grad():
            old = agent.policy(batch.obs)  # pi_k

        for rows, old_rows in islice(self._parts(batch, old, learner.generator), self.steps):
            learner.optimizer.descend(partial(self._policy_loss, agent.policy, rows, old_rows, step_size))

        fit = fit_critic(agent.critic, batch, learner, self.critic_epochs, self.critic_minibatch_size)
        return {"step_size": step_size} | rates | fit

    def _parts(
        self, batch: Batch, old: Distribution, generator: torch.Generator
    ) -> Iterator[tuple[Batch, Distribution]]:
        """What each gradient step sees, without end: the batch, or its minibatches, shuffled anew every pass."""
        while True:
            if self.minibatch_size is None:
                yield batch, old
            else:
                for index in batch.minibatch_indices(self.minibatch_size, generator):
                    yield batch.rows(index), old.rows(index)

    def _policy_loss(self, policy: Policy, rows: Batch, old: Distribution, step_size: float) -> Tensor:
        """-Ψ: the negative of the objective that mirror descent maximises in iteration k."""
        new = policy(rows.obs)
        log_ratio = new.log_prob(rows.action) - rows.log_prob
        return -kl_penalized_surrogate(log_ratio, rows.advantage, new.kl(old), 1 / step_size)
