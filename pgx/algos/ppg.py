"""Phasic policy gradient."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from pgx.algos.common.advantages import make_batch, rollout_values
from pgx.algos.common.critic_fit import CRITIC_LOSS, minibatch_conflicts
from pgx.core.agent import Agent, Critic, Distribution, Metrics, Policy, State, ValueHeadPolicy
from pgx.core.algorithm import Learner, Setting, Use
from pgx.core.data import Batch, Observations, Rollout, shuffled_parts
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, NonNegative, Positive, check_fields
from pgx.ops.losses import clipped_surrogate, joint_loss, value_loss
from pgx.ops.returns import gae
from pgx.ops.stats import standardize


@dataclass
class PPG:
    """Phasic policy gradient: updates of PPO, then an auxiliary phase that fits the policy's value head.

    Source: Cobbe, Hilton, Klimov and Schulman, "Phasic policy gradient", 2020, algorithm 1; for network=shared its
    section on single-network PPG. Passes of the policy and of the value function alternate over the same minibatches,
    as in PPO. The data of a phase are kept in `Learner.state`, and so in every checkpoint.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "auxiliary_phase",
            "0 or 1",
            "1: an auxiliary phase ended the iteration, and its health is that of both phases",
        ),
        Metric(
            "auxiliary_loss",
            "value^2",
            "half the mean squared error of the policy's value head on what the auxiliary phase learned from, "
            "after it",
        ),
        Metric("auxiliary_kl", "nats", "mean KL(pi before || pi after) of the auxiliary phase, on the same"),
        CRITIC_LOSS,
    )

    discount: Fraction = DEFAULT  # gamma
    gae_lambda: Fraction = DEFAULT  # lambda
    # To mean 0 and standard deviation 1, over the whole batch or over each minibatch.
    normalize_advantage: Literal["off", "batch", "minibatch"] = DEFAULT
    # epsilon: the objective gives no incentive to move the ratio beyond 1 +- epsilon
    clip_range: Positive = DEFAULT
    entropy_coefficient: NonNegative = DEFAULT  # bonus per nat of entropy, in units of the advantage
    # dual: the critic is the value function, and the policy's value head only trains the policy's trunk. shared: the
    # value head is the value function; the policy phase trains only the head, the auxiliary phase also the trunk.
    network: Literal["dual", "shared"] = DEFAULT
    # N_pi: updates of one policy phase; an auxiliary phase follows the last
    policy_iterations: Count = DEFAULT
    policy_epochs: Count = DEFAULT  # E_pi: passes of the policy over the batch
    value_epochs: Count = DEFAULT  # E_V: passes of the value function over the batch
    minibatch_size: Count = DEFAULT  # rows
    auxiliary_epochs: Count = DEFAULT  # E_aux: passes over all data of the policy phase
    auxiliary_minibatch_size: Count = DEFAULT  # rows
    # penalty per nat of KL(pi_old || pi) in the auxiliary phase, in units of value^2
    beta_clone: NonNegative = DEFAULT

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def uses(self) -> frozenset[Use]:
        both: frozenset[Use] = frozenset({"optimizer", "value_head"})
        return both | {"critic_optimizer"} if self.network == "dual" else both

    def conflicts(self, setting: Setting) -> list[str]:
        found = minibatch_conflicts(setting, self.minibatch_size, "algo.minibatch_size")
        if setting.is_recurrent:
            found.append(
                f"policy={setting.policy}: the auxiliary phase of ppg uses single stored observations, and a recurrent "
                "policy needs sequences; set policy=two_headed"
            )
        if setting.rollout_steps is None:
            return found
        batch = setting.rollout_steps * setting.num_envs
        rows, size = self.policy_iterations * batch, self.auxiliary_minibatch_size
        if rows % size != 0:
            found.append(
                f"algo.auxiliary_minibatch_size: a phase, algo.policy_iterations {self.policy_iterations} x "
                f"{batch} rows = {rows}, does not divide into minibatches of {size} ({rows} / {size} = "
                f"{rows / size:.4g})"
            )
        return found

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        value_of = agent.critic if self.network == "dual" else cast(ValueHeadPolicy, agent.policy).value
        value, next_value = rollout_values(value_of, agent.normalizer, rollout)
        ends = rollout.terminated, rollout.truncated
        advantage = gae(rollout.reward, value, next_value, *ends, self.discount, self.gae_lambda)
        batch = make_batch(agent, rollout, value, advantage, advantage + value)
        if self.normalize_advantage == "batch":
            return replace(batch, advantage=standardize(batch.advantage))
        return batch

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rates = learner.anneal(progress)

        for epoch in range(max(self.policy_epochs, self.value_epochs)):
            minibatches = batch.minibatches(self.minibatch_size, learner.generator)
            if epoch < self.policy_epochs:
                learner.optimizer.step_minibatches(self._policy_loss, (batch,), minibatches)
            if epoch < self.value_epochs:
                critic_loss = self._value_pass(learner, batch, minibatches)

        metrics = rates | {"critic_loss": critic_loss, "auxiliary_phase": 0.0}
        # A new list, because the old one may belong to a checkpoint that is not yet written.
        phase = [*learner.state.get("phase", []), _stored_rows(rollout, batch)]
        if len(phase) < self.policy_iterations:
            learner.state["phase"] = phase
            return metrics
        learner.state["phase"] = []
        return metrics | self._auxiliary_phase(agent, learner, *_phase_data(agent, rollout, phase))

    def _auxiliary_phase(
        self, agent: Agent, learner: Learner, obs: Observations, value_target: Tensor
    ) -> Metrics:
        """Fit the value head and the critic to the value targets of a phase, and penalize changes of the policy."""
        policy = cast(ValueHeadPolicy, agent.policy)
        with torch.no_grad():
            old = policy(obs)

        for _ in range(self.auxiliary_epochs):
            minibatches = shuffled_parts(
                len(obs), self.auxiliary_minibatch_size, learner.generator, value_target.device
            )
            learner.optimizer.step_minibatches(self._joint_loss, (obs, old, value_target), minibatches)
            if self.network == "dual":
                learner.critic_optimizer.step_minibatches(_critic_loss, (obs, value_target), minibatches)

        with torch.no_grad():
            return {
                "auxiliary_phase": 1.0,
                "auxiliary_loss": float(value_loss(policy.value(obs), value_target)),
                "auxiliary_kl": float(old.kl(policy(obs)).mean()),
            }

    def _policy_loss(self, policy: Policy, rows: Batch) -> Tensor:
        """Return -(L_clip + c S)."""
        distribution = policy(rows.obs)
        log_ratio = distribution.log_prob(rows.action) - rows.log_prob
        minibatch = self.normalize_advantage == "minibatch"
        advantage = standardize(rows.advantage) if minibatch else rows.advantage
        loss = -clipped_surrogate(log_ratio, advantage, self.clip_range)
        if self.entropy_coefficient > 0:
            loss = loss - self.entropy_coefficient * distribution.entropy().mean()
        return loss

    def _value_pass(self, learner: Learner, batch: Batch, minibatches: Sequence[Tensor]) -> float:
        """Train the value function for one pass of the policy phase; in a shared network only the value head."""
        data = batch.obs, batch.value_target
        if self.network == "dual":
            return float(learner.critic_optimizer.step_minibatches(_critic_loss, data, minibatches).mean())
        return float(learner.optimizer.step_minibatches(_value_head_loss, data, minibatches).mean())

    def _joint_loss(
        self, policy: ValueHeadPolicy, obs: Observations, old: Distribution, value_target: Tensor
    ) -> Tensor:
        """Return L_joint, with the regression of the value head as L_aux."""
        return joint_loss(policy.value(obs), value_target, old.kl(policy(obs)), self.beta_clone)


def _critic_loss(critic: Critic, obs: Observations, value_target: Tensor) -> Tensor:
    return value_loss(critic(obs), value_target)


def _value_head_loss(policy: ValueHeadPolicy, obs: Observations, value_target: Tensor) -> Tensor:
    return value_loss(policy.value_detached(obs), value_target)


def _stored_rows(rollout: Rollout, batch: Batch) -> State:
    """Return the data of a rollout's valid rows that the auxiliary phase needs.

    Observations are stored without normalization. The normalizer changes between the rollouts of a phase, and the
    auxiliary phase must preserve the policy as a function of the raw observation under the current normalizer.
    """
    kept = {
        "obs": rollout.obs[rollout.valid],
        "time": batch.obs.time,
        "value_target": batch.value_target,
    }
    mask = batch.obs.action_mask
    return kept if mask is None else kept | {"action_mask": mask}


def _phase_data(agent: Agent, rollout: Rollout, phase: list[State]) -> tuple[Observations, Tensor]:
    """Return the observations of a whole phase under the current normalizer, and their value targets."""
    device = rollout.obs.device  # the state of a loaded checkpoint may be on another device
    kept = {key: torch.cat([part[key].to(device) for part in phase]) for key in phase[0]}
    obs = Observations(agent.normalizer(kept["obs"]), kept["time"], kept.get("action_mask"))
    return obs, kept["value_target"]
