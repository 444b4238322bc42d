"""REINFORCE from episodes of a behavior policy."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgx.algos.common.advantages import make_batch, rollout_log_ratio
from pgx.core.agent import Agent, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, Positive, check_fields
from pgx.ops.episodes import discounted_by_time, from_grid, sum_of_others, to_grid
from pgx.ops.importance import (
    log_per_decision_weights,
    log_self_normalized_weights,
    log_trajectory_weights,
    log_truncated_weights,
)
from pgx.ops.losses import surrogate
from pgx.ops.returns import discounted_returns
from pgx.ops.stats import effective_sample_size


@dataclass
class OffPolicyREINFORCE:
    """Off-policy REINFORCE: the Monte Carlo policy gradient of π from whole episodes of μ, by importance sampling.

    J = E_π[Σ_k γ^k r_k] = E_μ[Σ_k w_k γ^k r_k], with w_k the product of π/μ over the steps up to k, or over the whole
    episode; ∇J = E_μ[Σ_t ∇ log π(a_t|s_t) g_t], g_t = Σ_{k>=t} w_k γ^k r_k.

    Source: Precup, Sutton and Singh, "Eligibility traces for off-policy policy evaluation", 2000, for the weights of a
    return; Williams, 1992, for the gradient of the weighted return. An episode ends at the environment's time limit,
    without bootstrapping.
    """

    uses: ClassVar[frozenset[Use]] = frozenset({"optimizer", "recorded"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "weight_variance",
            "1",
            "variance over the rollout's episodes of w(tau), the product of pi(a|s) / mu(a|s) over an episode, "
            "of the policy before the update, not truncated",
        ),
        Metric(
            "weight_ess", "fraction", "effective sample size (sum w(tau))^2 / (n sum w(tau)^2) of n episodes"
        ),
        Metric("weight_max", "1", "largest w(tau)"),
    )

    discount: Fraction = DEFAULT  # gamma; 1 is the undiscounted objective
    # w_k. trajectory: the product of all ratios of the episode, for every k; per_decision: of the ratios up to step k,
    # which has the same expectation and less variance, because later actions do not affect the reward.
    weights: Literal["trajectory", "per_decision"] = DEFAULT
    truncate: Positive | None = DEFAULT  # upper bound on the weights; null: no bound
    # Divide by the sum of the weights (per_decision: of each time step) instead of the number of episodes.
    self_normalize: bool = DEFAULT
    # g_t contains the rewards from step t on; false: all rewards, possible with trajectory weights.
    reward_to_go: bool = DEFAULT
    # others: subtract w_t b_t, with b_t the weighted mean of g_t over the other episodes that reach step t
    baseline: Literal["none", "others"] = DEFAULT
    # Gradient steps on a rollout; each uses the weights of the current policy.
    steps: Count = DEFAULT

    def __post_init__(self) -> None:
        check_fields(self)

    def conflicts(self, setting: Setting) -> list[str]:
        found = []
        if setting.rollout_steps is not None:
            found.append(
                f"runner.rollout_steps: off_policy_reinforce needs whole episodes, and {setting.rollout_steps} steps "
                "of each environment cut them; set runner=dataset (or runner=episodes, with all weights 1 at first)"
            )
        if setting.is_recurrent:
            found.append(
                f"policy={setting.policy}: off_policy_reinforce evaluates the policy at single steps of recorded "
                "episodes, which a recurrent policy does not support; set policy=mlp"
            )
        if self.weights == "per_decision" and not self.reward_to_go:
            found.append(
                "algo.reward_to_go: expected true with algo.weights=per_decision: the weight of a reward contains no "
                "ratios of later actions"
            )
        return found

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        """Return the batch whose surrogate, mean(π/μ A), has the estimate of ∇J as its gradient.

        The gradient of the rule is a sum over steps and a mean over n episodes of ∇ log π g; that of the surrogate is a
        mean over B rows of π/μ ∇ log π A. So A = B/n g / (π/μ): the row's own ratio is divided out of g.
        """
        time, valid = rollout.time, rollout.valid
        log_ratio = rollout_log_ratio(agent, rollout).double()
        reward = discounted_by_time(rollout.reward.double(), time, self.discount)
        lasts = to_grid(valid, time, valid)
        gain = self._gain(to_grid(log_ratio, time, valid), to_grid(reward, time, valid), lasts)
        rows_per_episode = rollout.steps / lasts.shape[1]
        advantage = rows_per_episode * from_grid(gain, time, valid) * (-log_ratio).exp()
        nothing = torch.zeros_like(rollout.reward)
        returns = discounted_returns(
            rollout.reward, nothing, rollout.terminated, rollout.truncated, self.discount
        )
        return make_batch(agent, rollout, nothing, advantage.to(nothing.dtype), returns)

    def _gain(self, log_ratio: Tensor, reward: Tensor, lasts: Tensor) -> Tensor:
        """Return g_t minus the baseline, [L, E].

        Args:
            log_ratio: [L, E] log π/μ, one column for each episode, 0 after its end.
            reward: [L, E] γ^t r_t, 0 after the end.
            lasts: [L, E] bool, True to the end of each episode.
        """
        never = torch.zeros_like(lasts)  # columns are single episodes: after its end, an episode has reward 0
        log_weights = log_trajectory_weights if self.weights == "trajectory" else log_per_decision_weights
        log_weight = log_weights(log_ratio, never, never)
        if self.truncate is not None:
            log_weight = log_truncated_weights(log_weight, self.truncate)
        if self.self_normalize:
            log_weight = log_self_normalized_weights(log_weight)
        weight = log_weight.exp()

        gain = (weight * reward).flip(0).cumsum(0).flip(0)
        if not self.reward_to_go:
            gain = gain[:1].expand_as(gain)
        if self.baseline == "others":
            others = sum_of_others(weight * lasts)
            baseline = torch.where(others > 0, sum_of_others(gain * lasts) / others, 0.0)
            gain = gain - weight * baseline
        return gain

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        metrics = learner.anneal(progress) | _weight_metrics(agent, rollout)
        for _ in range(self.steps):
            batch = self.estimate(agent, rollout)
            learner.optimizer.step(_loss, batch)
        return metrics


def _loss(policy: Policy, batch: Batch) -> Tensor:
    return -surrogate(policy(batch.obs).log_prob(batch.action) - batch.log_prob, batch.advantage)


def _weight_metrics(agent: Agent, rollout: Rollout) -> Metrics:
    """Return statistics of the episodes' weights Π π/μ, for all choices of `weights`."""
    log_ratio = rollout_log_ratio(agent, rollout).double()
    log_weight = to_grid(log_ratio, rollout.time, rollout.valid).sum(0)  # [E]
    return {
        "weight_variance": float(log_weight.exp().var(correction=0)),
        "weight_ess": float(effective_sample_size(log_weight)),
        "weight_max": float(log_weight.max().exp()),
    }
