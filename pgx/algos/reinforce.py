"""REINFORCE: the Monte Carlo policy gradient."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgx.algos.common.advantages import make_batch, rollout_values
from pgx.algos.common.critic_fit import CRITIC_LOSS, fit_critic
from pgx.core.agent import Agent, Metrics, Policy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, Index, check_fields
from pgx.ops.episodes import (
    at_episode_start,
    discounted_by_time,
    other_episodes_mean,
    other_episodes_mean_at_step,
    trajectory_objective,
)
from pgx.ops.returns import discounted_returns
from pgx.ops.stats import standardize


@dataclass
class REINFORCE:
    """REINFORCE: one gradient step on whole episodes, with the log probability of each action weighted by a return.

    Source: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
    1992; Sutton and Barto, Reinforcement Learning, 2nd ed., sections 13.3 and 13.4 (their G_t starts at R_{t+1}, which
    is r_t here). The horizon is the environment's time limit, without bootstrapping.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (CRITIC_LOSS,)

    discount: Fraction = DEFAULT  # gamma; 1 is the undiscounted objective
    # Weight of ∇ log π(a_t|s_t) before the baseline, with G_t = Σ_{k>=t} γ^{k-t} r_k. trajectory: G_0, the return of
    # the whole episode; discounted: γ^t G_t, with the same expectation and less variance; reward_to_go: G_t, without
    # γ^t, which for γ < 1 is not the gradient of an objective, and weights late steps as much as early ones.
    weighting: Literal["trajectory", "reward_to_go", "discounted"] = DEFAULT
    # Subtracted from the weight. constant: its mean over the rows of the other episodes; time_dependent: its mean at
    # the same step of the other episodes that reach it; value: the prediction of the critic.
    baseline: Literal["none", "constant", "time_dependent", "value"] = DEFAULT
    normalize_advantage: bool = DEFAULT  # to mean 0 and standard deviation 1 over the batch
    critic_epochs: Index = DEFAULT  # passes of regression over the batch (baseline value)
    critic_minibatch_size: Count = DEFAULT  # rows (baseline value)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def uses(self) -> frozenset[Use]:
        return frozenset({"optimizer", "critic_optimizer"} if self.baseline == "value" else {"optimizer"})

    def conflicts(self, setting: Setting) -> list[str]:
        found = []
        if setting.rollout_steps is not None:
            found.append(
                f"runner.rollout_steps: reinforce learns from whole episodes, and {setting.rollout_steps} steps of "
                "each environment cut them; set runner=episodes"
            )
        if self.baseline == "value" and setting.critic == "none":
            found.append(
                "critic=none: algo.baseline=value needs a critic; set critic=mlp critic_optimizer=adam"
            )
        return found

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        _require_whole_episodes(rollout)
        value, _ = rollout_values(agent.critic, agent.normalizer, rollout)
        no_value = torch.zeros_like(rollout.reward)  # no bootstrapping at truncations either
        returns = discounted_returns(
            rollout.reward, no_value, rollout.terminated, rollout.truncated, self.discount
        )
        weight = self._weight(returns, rollout)
        advantage = weight - self._baseline(weight, value, rollout)
        batch = make_batch(agent, rollout, value, advantage, returns)
        return replace(batch, advantage=standardize(batch.advantage)) if self.normalize_advantage else batch

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        metrics = learner.anneal(progress)
        episodes = rollout.done[rollout.valid].sum()
        learner.optimizer.step(self._policy_loss, batch, episodes)
        if self.baseline == "value":
            metrics |= fit_critic(batch, learner, self.critic_epochs, self.critic_minibatch_size)
        return metrics

    def _weight(self, returns: Tensor, rollout: Rollout) -> Tensor:
        match self.weighting:
            case "trajectory":
                return at_episode_start(returns, rollout.time)
            case "discounted":
                return discounted_by_time(returns, rollout.time, self.discount)
            case "reward_to_go":
                return returns

    def _baseline(self, weight: Tensor, value: Tensor, rollout: Rollout) -> Tensor:
        """Return a baseline [T, N] that does not depend on the action of its row, and so adds no bias."""
        match self.baseline:
            case "none":
                return torch.zeros_like(weight)
            case "constant":
                return other_episodes_mean(weight, rollout.time, rollout.valid)
            case "time_dependent":
                return other_episodes_mean_at_step(weight, rollout.time, rollout.valid)
            case "value":  # V predicts G_t, from which the weight is computed
                return self._weight(value, rollout)

    def _policy_loss(self, policy: Policy, batch: Batch, episodes: Tensor) -> Tensor:
        log_prob = policy(batch.obs).log_prob(batch.action)
        return -trajectory_objective(log_prob, batch.advantage, episodes)


def _require_whole_episodes(rollout: Rollout) -> None:
    """Raise ValueError unless the rollout has every episode from the first step to the last."""
    onward = rollout.valid & ~rollout.done
    followed = torch.cat([rollout.valid[1:], torch.zeros_like(onward[:1])])
    row = torch.arange(len(onward), device=onward.device).unsqueeze(-1)
    if bool((onward & ~followed).any() | (rollout.valid & (rollout.time > row)).any()):
        raise ValueError(
            "reinforce learns from whole episodes, and this rollout has parts of episodes; set runner=episodes"
        )
