"""Proximal policy optimization, KL penalty."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgx.estimates import gae_batch
from pgx.ops.losses import kl_penalized_surrogate, value_loss
from pgx.ops.stats import standardize
from pgx.regression import minibatch_conflicts
from pgx.schema import Count, Fraction, NonNegative, Positive, validate
from pgx.types import Agent, Batch, Critic, Distribution, Metrics, Optimizer, Policy, Rollout, State

# While the policy cannot move (a learning rate annealed to nothing) every update halves beta, and while no penalty can
# hold it every update doubles beta. Beyond these bounds it would take as many updates to come back to where it
# matters, and end in a zero or an infinity that no halving or doubling leaves.
BETA_MIN, BETA_MAX = 1e-4, 1e4


@dataclass
class PPOKL:
    """Several epochs of minibatch ascent on the surrogate less beta times the KL; beta follows a target KL.

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, section 4 and eq. 8; algorithm 1 with
    that objective. Policy and critic have optimizers of their own, as in PPO's clipped form.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"optimizer", "critic_optimizer"})

    discount: Fraction  # gamma
    gae_lambda: Fraction  # lambda
    # To mean 0 and standard deviation 1, over the whole batch or over each minibatch.
    normalize_advantage: Literal["off", "batch", "minibatch"]
    epochs: Count  # passes over the batch
    minibatch_size: Count  # rows
    entropy_coefficient: NonNegative  # bonus per nat of entropy, in units of the advantage
    # KL(pi_old || pi), the paper's, or KL(pi || pi_old): of the penalty, and of what beta is adapted by.
    kl_direction: Literal["old_new", "new_old"]
    beta: NonNegative  # price of a nat of KL in units of the advantage; where it starts if it is adapted
    adapt_beta: bool  # doubled or halved after each update; false: fixed
    kl_target: Positive  # d_targ, nats: mean KL of one update that beta is adapted towards

    def __post_init__(self) -> None:
        validate(self)

    def setup(
        self,
        agent: Agent,
        optimizer: Optimizer | None,
        critic_optimizer: Optimizer | None,
        generator: torch.Generator,
    ) -> None:
        assert optimizer is not None and critic_optimizer is not None
        self.optimizer = optimizer
        self.critic_optimizer = critic_optimizer
        self.generator = generator
        self.current_beta = self.beta

    def conflicts(self, rollout_steps: int, num_envs: int) -> list[str]:
        return minibatch_conflicts(rollout_steps, num_envs, self.minibatch_size, "algo.minibatch_size")

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        return gae_batch(
            agent, rollout, self.discount, self.gae_lambda, normalize=self.normalize_advantage == "batch"
        )

    def update(self, agent: Agent, rollout: Rollout, progress: float) -> Metrics:
        batch = self.estimate(agent, rollout)
        rate = self.optimizer.anneal(progress)
        critic_rate = self.critic_optimizer.anneal(progress)
        beta = self.current_beta
        with torch.no_grad():
            old = agent.policy(batch.obs)

        for _ in range(self.epochs):
            critic_losses = []
            for index in batch.minibatch_indices(self.minibatch_size, self.generator):
                rows = batch.rows(index)
                self.optimizer.descend(partial(self._policy_loss, agent.policy, rows, old.rows(index)))
                critic_losses.append(
                    self.critic_optimizer.descend(partial(self._critic_loss, agent.critic, rows))
                )

        if self.adapt_beta:
            with torch.no_grad():
                kl = float(self._kl(old, agent.policy(batch.obs)).mean())  # d, over the whole batch
            if kl > 1.5 * self.kl_target:
                self.current_beta = min(max(2 * beta, BETA_MIN), BETA_MAX)
            elif kl < self.kl_target / 1.5:
                self.current_beta = min(max(beta / 2, BETA_MIN), BETA_MAX)

        return {
            "beta": beta,
            "learning_rate": rate,
            "critic_loss": float(torch.stack(critic_losses).mean()),
            "critic_learning_rate": critic_rate,
        }

    def _policy_loss(self, policy: Policy, rows: Batch, old: Distribution) -> Tensor:
        """-(L_KLPEN + c S): the negative of eq. 8 with an entropy bonus."""
        new = policy(rows.obs)
        log_ratio = new.log_prob(rows.action) - rows.log_prob
        minibatch = self.normalize_advantage == "minibatch"
        advantage = standardize(rows.advantage) if minibatch else rows.advantage
        loss = -kl_penalized_surrogate(log_ratio, advantage, self._kl(old, new), self.current_beta)
        if self.entropy_coefficient > 0:
            loss = loss - self.entropy_coefficient * new.entropy().mean()
        return loss

    def _kl(self, old: Distribution, new: Distribution) -> Tensor:
        return old.kl(new) if self.kl_direction == "old_new" else new.kl(old)

    def _critic_loss(self, critic: Critic, rows: Batch) -> Tensor:
        return value_loss(critic(rows.obs), rows.value_target)

    def state_dict(self) -> State:
        return {
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "beta": self.current_beta,
        }

    def load_state_dict(self, state: State) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.generator.set_state(state["generator"])
        self.current_beta = state["beta"]
