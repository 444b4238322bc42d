"""Actor-critic, with three forms of the weight of an action."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from pgx.algos.common.advantages import make_batch, rollout_values
from pgx.algos.common.critic_fit import CRITIC_LOSS, critic_loss
from pgx.core.agent import ActionValueCritic, Agent, Critic, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, NonNegative, check_fields
from pgx.ops.losses import policy_gradient, value_loss
from pgx.ops.returns import gae, n_step_returns
from pgx.ops.stats import standardize


@dataclass
class ActorCritic:
    """Actor-critic: one gradient step of the policy on each rollout, with each action weighted by a critic.

    Source: Sutton et al., "Policy gradient methods for reinforcement learning with function approximation", 2000,
    theorem 1, which permits each of the three weights; Konda and Tsitsiklis, "Actor-critic algorithms", 2000, for a
    critic that learns Q together with the policy; Sutton and Barto, Reinforcement Learning, 2nd ed., section 13.5, for
    the TD error. States are weighted by their visits, without the factor discount^t of the theorem's discounted case.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (CRITIC_LOSS,)

    discount: Fraction = DEFAULT  # gamma
    # Weight of grad log pi(a|s). q: a learned Q(s, a). advantage: Q(s, a) - V(s), both learned. td: G - V(s), from V
    # only. Every form fits its critic to the same target G, so that the forms differ only in the weight.
    form: Literal["q", "advantage", "td"] = DEFAULT
    # G is one of two returns; the other key is null.
    n_steps: Count | None = DEFAULT  # G is the n-step return: this many rewards, then V
    gae_lambda: Fraction | None = DEFAULT  # G is the lambda-return
    normalize_advantage: bool = DEFAULT  # the weight to mean 0 and standard deviation 1 over the batch
    entropy_coefficient: NonNegative = DEFAULT  # bonus per nat of entropy, in units of the weight
    critic_steps: Count = DEFAULT  # gradient steps of the critic on each rollout

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def uses(self) -> frozenset[Use]:
        steps: frozenset[Use] = frozenset({"optimizer", "critic_optimizer", "shared_parameters", "ranks"})
        return steps if self.form == "td" else steps | {"action_values"}

    def conflicts(self, setting: Setting) -> list[str]:
        if (self.n_steps is None) != (self.gae_lambda is None):
            return self._length_conflicts(setting.rollout_steps)
        given = (
            "neither" if self.n_steps is None else f"n_steps={self.n_steps} and gae_lambda={self.gae_lambda}"
        )
        return [
            f"algo.n_steps, algo.gae_lambda: the critic's target is the n-step return or the lambda-return; expected "
            f"a number for one and null for the other, got {given}",
        ]

    def _length_conflicts(self, rollout_steps: int | None) -> list[str]:
        if self.n_steps is None or rollout_steps is None or self.n_steps <= rollout_steps:
            return []
        return [
            f"algo.n_steps={self.n_steps}: a rollout is shorter, runner.rollout_steps {rollout_steps} < "
            f"{self.n_steps}, so no target has this many rewards; set at most {rollout_steps}"
        ]

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        value, next_value = rollout_values(agent.critic, agent.normalizer, rollout)
        advantage = self._td_advantage(rollout, value, next_value)
        batch = make_batch(agent, rollout, value, advantage, advantage + value)
        weight = self._weight(agent, batch)
        return replace(
            batch, advantage=standardize(weight, batch.mean) if self.normalize_advantage else weight
        )

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rates = learner.anneal(progress)
        learner.optimizer.step(self._policy_loss, batch)
        for _ in range(self.critic_steps):
            loss = learner.critic_optimizer.step(self._critic_loss, batch)
        return rates | {"critic_loss": float(loss)}

    def _td_advantage(self, rollout: Rollout, value: Tensor, next_value: Tensor) -> Tensor:
        """Return G_t - V(s_t), [T, N]."""
        ends = rollout.terminated, rollout.truncated
        if self.gae_lambda is not None:
            return gae(rollout.reward, value, next_value, *ends, self.discount, self.gae_lambda)
        assert self.n_steps is not None
        return n_step_returns(rollout.reward, next_value, *ends, self.discount, self.n_steps) - value

    @torch.no_grad()
    def _weight(self, agent: Agent, batch: Batch) -> Tensor:
        """Return the weight of grad log pi(a|s), [B]."""
        if self.form == "td":
            return batch.advantage
        action_value = cast(ActionValueCritic, agent.critic).action_value(batch.obs, batch.action)
        return action_value if self.form == "q" else action_value - batch.value

    def _policy_loss(self, policy: Policy, batch: Batch) -> Tensor:
        distribution = policy(batch.obs)
        gain = policy_gradient(distribution.log_prob(batch.action), batch.advantage)
        return -(gain + self.entropy_coefficient * distribution.entropy().mean())

    def _critic_loss(self, critic: Critic, batch: Batch) -> Tensor:
        loss = critic_loss(critic, batch)
        if self.form == "td":
            return loss
        action_value = cast(ActionValueCritic, critic).action_value(batch.obs, batch.action)
        return loss + value_loss(action_value, batch.value_target)
