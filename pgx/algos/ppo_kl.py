"""Proximal policy optimization, KL penalty."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgx.algos.common.advantages import gae_batch
from pgx.algos.common.critic_fit import CRITIC_LOSS, critic_loss, minibatch_conflicts
from pgx.core.agent import Agent, Distribution, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, NonNegative, Positive, check_fields
from pgx.ops.losses import kl_penalized_surrogate
from pgx.ops.stats import standardize

# While the policy cannot move (a learning rate annealed to 0) every update halves beta, and while no penalty limits the
# KL every update doubles beta. Without bounds beta would need as many updates to return to a useful size, and would end
# at zero or infinity, from which halving and doubling cannot return.
BETA_MIN, BETA_MAX = 1e-4, 1e4


@dataclass
class PPOKL:
    """Proximal policy optimization with a KL penalty: ascent on the surrogate minus beta KL, with an adaptive beta.

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, section 4 and eq. 8; algorithm 1 with
    this objective. Policy and critic have separate optimizers, as in `PPO`.
    """

    uses: ClassVar[frozenset[Use]] = frozenset({"optimizer", "critic_optimizer", "ranks"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("beta", "advantage/nat", "coefficient of the KL penalty in this update, before it is adapted"),
        CRITIC_LOSS,
    )

    discount: Fraction = DEFAULT  # gamma
    gae_lambda: Fraction = DEFAULT  # lambda
    # To mean 0 and standard deviation 1, over the whole batch or over each minibatch.
    normalize_advantage: Literal["off", "batch", "minibatch"] = DEFAULT
    epochs: Count = DEFAULT  # passes over the batch
    minibatch_size: Count = DEFAULT  # rows
    recompute_advantages: bool = DEFAULT  # before every pass except the first, with the current critic
    entropy_coefficient: NonNegative = DEFAULT  # bonus per nat of entropy, in units of the advantage
    # KL(pi_old || pi), as in the paper, or KL(pi || pi_old): in the penalty and in the adaptation of beta.
    kl_direction: Literal["old_new", "new_old"] = DEFAULT
    # penalty per nat of KL in units of the advantage; the initial value if beta is adapted
    beta: NonNegative = DEFAULT
    # double or halve beta after an update far from kl_target; false: beta is fixed
    adapt_beta: bool = DEFAULT
    kl_target: Positive = DEFAULT  # d_targ, nats: target of the mean KL of one update, used to adapt beta

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
        beta: float = learner.state.get("beta", self.beta)
        with torch.no_grad():
            old = agent.policy(batch.obs)

        for epoch in range(1, self.epochs + 1):
            if self.recompute_advantages and epoch > 1:
                batch = self.estimate(agent, rollout)
            minibatches = batch.minibatches(self.minibatch_size, learner.generator)
            critic_result = learner.engine.submit(
                learner.critic_optimizer.step_minibatches, critic_loss, (batch,), minibatches
            )
            learner.optimizer.step_minibatches(
                self._policy_loss, (batch, old, torch.tensor(beta)), minibatches
            )
            critic_losses = critic_result()

        if self.adapt_beta:
            with torch.no_grad():
                kl = float(batch.mean(self._kl(old, agent.policy(batch.obs))))  # d, over the whole batch
            learner.state["beta"] = self._adapted(beta, kl)

        return rates | {"beta": beta, "critic_loss": float(critic_losses.mean())}

    def _adapted(self, beta: float, kl: float) -> float:
        """Return beta for the next update, after one with a mean KL of kl nats."""
        if kl > 1.5 * self.kl_target:
            return min(max(2 * beta, BETA_MIN), BETA_MAX)
        if kl < self.kl_target / 1.5:
            return min(max(beta / 2, BETA_MIN), BETA_MAX)
        return beta

    def _policy_loss(self, policy: Policy, rows: Batch, old: Distribution, beta: Tensor) -> Tensor:
        """Return -(L_KLPEN + c S), the negative of eq. 8 with an entropy bonus."""
        new = policy(rows.obs)
        log_ratio = new.log_prob(rows.action) - rows.log_prob
        minibatch = self.normalize_advantage == "minibatch"
        advantage = standardize(rows.advantage, rows.mean) if minibatch else rows.advantage
        loss = -kl_penalized_surrogate(log_ratio, advantage, self._kl(old, new), beta)
        if self.entropy_coefficient > 0:
            loss = loss - self.entropy_coefficient * new.entropy().mean()
        return loss

    def _kl(self, old: Distribution, new: Distribution) -> Tensor:
        return old.kl(new) if self.kl_direction == "old_new" else new.kl(old)
