"""Advantage actor-critic, synchronous."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pgx.algos.common.advantages import gae_batch
from pgx.algos.common.critic_fit import CRITIC_LOSS, critic_loss
from pgx.core.agent import Agent, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Fraction, NonNegative, check_fields
from pgx.ops.losses import policy_gradient


@dataclass
class A2C:
    """Advantage actor-critic: one gradient step of policy and critic on each short rollout of all environments.

    Source: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3, with its actors
    stepped together and their gradients averaged. With gae_lambda = 1 the advantage is that of the paper: the rewards
    to the end of the rollout, plus the critic's value there, minus V(s_t). Policy and critic have separate networks and
    optimizers.
    """

    uses: ClassVar[frozenset[Use]] = frozenset(
        {"optimizer", "critic_optimizer", "shared_parameters", "ranks"}
    )
    metrics: ClassVar[tuple[Metric, ...]] = (CRITIC_LOSS,)

    discount: Fraction = DEFAULT  # gamma
    gae_lambda: Fraction = DEFAULT  # lambda; 1 is the paper's n-step advantage
    normalize_advantage: bool = DEFAULT  # to mean 0 and standard deviation 1 over the batch
    entropy_coefficient: NonNegative = DEFAULT  # bonus per nat of entropy, in units of the advantage

    def __post_init__(self) -> None:
        check_fields(self)

    def conflicts(self, setting: Setting) -> list[str]:
        return []

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        return gae_batch(agent, rollout, self.discount, self.gae_lambda, self.normalize_advantage)

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rates = learner.anneal(progress)
        learner.optimizer.step(self._policy_loss, batch)
        loss = learner.critic_optimizer.step(critic_loss, batch)
        return rates | {"critic_loss": float(loss)}

    def _policy_loss(self, policy: Policy, batch: Batch) -> Tensor:
        distribution = policy(batch.obs)
        gain = policy_gradient(distribution.log_prob(batch.action), batch.advantage)
        return -(gain + self.entropy_coefficient * distribution.entropy().mean())
