"""V-trace actor-critic: the learner of IMPALA."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pgx.algos.common.advantages import make_batch, rollout_log_ratio, rollout_values
from pgx.algos.common.critic_fit import CRITIC_LOSS, critic_loss
from pgx.core.agent import Agent, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Fraction, NonNegative, Positive, check_fields
from pgx.ops.losses import policy_gradient
from pgx.ops.returns import vtrace
from pgx.ops.stats import standardize


@dataclass
class VTrace:
    """V-trace actor-critic: one gradient step of policy and critic on a rollout of a possibly older policy μ.

    Source: Espeholt et al., "IMPALA: scalable distributed deep-RL with importance weighted actor-learner
    architectures", 2018, section 4. The value targets are eq. 1. The weight min(rho_clip, π/μ) of each row's policy
    gradient is applied in the loss, so that `advantage` is a difference of values as in every other rule. In rollouts
    of the current policy every ratio is 1, and with trace_lambda = 1 this is A2C with gae_lambda = 1.
    """

    uses: ClassVar[frozenset[Use]] = frozenset(
        {"optimizer", "critic_optimizer", "off_policy", "shared_parameters"}
    )
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "behaviour_kl", "nats", "mean log mu(a|s) - log pi_old(a|s): KL(mu || pi_old) from the actions"
        ),
        Metric(
            "rho_clipped",
            "fraction",
            "of the sum of v = pi_old(a|s) / mu(a|s): what min(rho_clip, v) takes off",
        ),
        Metric("c_clipped", "fraction", "of the sum of v: what min(c_clip, v) takes off"),
        CRITIC_LOSS,
    )

    discount: Fraction = DEFAULT  # gamma
    # bound on pi/mu as weight of TD errors and policy gradient; null: no bound
    rho_clip: Positive | None = DEFAULT
    c_clip: Positive | None = DEFAULT  # bound on pi/mu in the traces, at most rho_clip; null: no bound
    trace_lambda: Fraction = DEFAULT  # lambda; 1 is the paper's n-step target
    normalize_advantage: bool = DEFAULT  # to mean 0 and standard deviation 1 over the batch
    entropy_coefficient: NonNegative = DEFAULT  # bonus per nat of entropy, in units of the advantage

    def __post_init__(self) -> None:
        check_fields(self)

    def conflicts(self, setting: Setting) -> list[str]:
        if _bound(self.c_clip) <= _bound(self.rho_clip):
            return []
        return [
            f"algo.c_clip: expected at most algo.rho_clip, {self.rho_clip}, got {self.c_clip or 'null'}: with traces "
            "larger than the weights of TD errors an update may move values away from their fixed point",
        ]

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        value, next_value = rollout_values(agent.critic, agent.normalizer, rollout)
        value_target, advantage = vtrace(
            rollout_log_ratio(agent, rollout),
            rollout.reward,
            value,
            next_value,
            rollout.terminated,
            rollout.truncated,
            self.discount,
            _bound(self.rho_clip),
            _bound(self.c_clip),
            self.trace_lambda,
        )
        batch = make_batch(agent, rollout, value, advantage, value_target)
        return replace(batch, advantage=standardize(batch.advantage)) if self.normalize_advantage else batch

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rates = learner.anneal(progress)
        with torch.no_grad():
            log_ratio = agent.policy(batch.obs).log_prob(batch.action) - batch.log_prob
        ratio = log_ratio.exp()
        rho, c = (ratio.clamp(max=_bound(clip)) for clip in (self.rho_clip, self.c_clip))
        learner.optimizer.step(self._policy_loss, batch, rho)
        loss = learner.critic_optimizer.step(critic_loss, batch)
        return rates | {
            "critic_loss": float(loss),
            "behaviour_kl": -float(log_ratio.mean()),
            "rho_clipped": 1 - float(rho.sum() / ratio.sum()),
            "c_clipped": 1 - float(c.sum() / ratio.sum()),
        }

    def _policy_loss(self, policy: Policy, batch: Batch, rho: Tensor) -> Tensor:
        """Return the negative of mean(ρ log π A) + c mean(entropy), with ρ and A constant in the gradient."""
        distribution = policy(batch.obs)
        gain = policy_gradient(distribution.log_prob(batch.action), rho * batch.advantage)
        return -(gain + self.entropy_coefficient * distribution.entropy().mean())


def _bound(clip: float | None) -> float:
    return math.inf if clip is None else clip
