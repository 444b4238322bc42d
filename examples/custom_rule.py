"""Train with your own update rule: one step up the policy gradient, then a few passes of the critic.

    pgx train algo=custom_rule:PolicyGradient env=CartPole-v1 trainer.total_steps=100_000

`algo=module:Class` imports the module and takes the values from the YAML file of the same name, custom_rule.yaml.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pgx.algos.common.advantages import gae_batch
from pgx.algos.common.critic_fit import CRITIC_LOSS, critic_loss, minibatch_conflicts
from pgx.core.agent import Agent, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, check_fields


@dataclass
class PolicyGradient:
    """Ascent on mean(log pi(a|s) A), one step for each batch."""

    uses: ClassVar[frozenset[Use]] = frozenset({"optimizer", "critic_optimizer"})
    metrics: ClassVar[tuple[Metric, ...]] = (CRITIC_LOSS,)

    discount: Fraction  # gamma
    gae_lambda: Fraction  # lambda
    critic_epochs: Count  # passes over the batch
    critic_minibatch_size: Count  # rows

    def __post_init__(self) -> None:
        check_fields(self)

    def conflicts(self, setting: Setting) -> list[str]:
        """Return why the rule cannot run with a config; nothing if it can."""
        return minibatch_conflicts(setting, self.critic_minibatch_size, "algo.critic_minibatch_size")

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        """Return the batch that `update` learns from; health metrics are measured on it too."""
        return gae_batch(agent, rollout, self.discount, self.gae_lambda, normalize=True)

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        """Update policy and critic on one rollout; return the metrics declared above."""
        batch = self.estimate(agent, rollout)
        rates = learner.anneal(progress)
        learner.optimizer.step(_policy_loss, batch)
        for _ in range(self.critic_epochs):
            minibatches = batch.minibatches(self.critic_minibatch_size, learner.generator)
            losses = learner.critic_optimizer.step_minibatches(critic_loss, (batch,), minibatches)
        return rates | {"critic_loss": float(losses.mean())}


def _policy_loss(policy: Policy, rows: Batch) -> Tensor:
    return -(policy(rows.obs).log_prob(rows.action) * rows.advantage).mean()
