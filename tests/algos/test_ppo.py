"""Tests of PPO against its definition: rows without gradient, and early stopping."""

from dataclasses import replace

import pytest
import torch

from pgx.algos.ppo import PPO
from pgx.compiler import Eager
from pgx.core.agent import Agent
from pgx.core.algorithm import Learner
from pgx.core.data import Batch, Rollout
from pgx.envs.normalizers import Identity
from pgx.networks.heads import GaussianPolicy
from pgx.networks.tabular import Zero
from pgx.ops.optim import NoSteps
from pgx.ops.params import flatten, gradient
from pgx.training.trainer import Trainer
from tests.conftest import Make, as_observations, parameters
from tests.widening import Widening, kl_of_widening

ENVS = ["env=CartPole-v1", "env=Pendulum-v1"]


def collected(trainer: Trainer) -> tuple[Rollout, Batch]:
    rollout = trainer.runner.collect(trainer.agent)
    return rollout, trainer.algorithm.estimate(trainer.agent, rollout)


@pytest.mark.parametrize("env", ENVS)
def test_first_gradient_is_the_policy_gradient_of_the_minibatch(make: Make, env: str) -> None:
    trainer = make("algo=ppo", env, "algo.normalize_advantage=off")
    _, batch = collected(trainer)
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    of_loss = gradient(-trainer.algorithm._policy_loss(policy, batch), parameters)
    reinforce = gradient((policy(batch.obs).log_prob(batch.action) * batch.advantage).mean(), parameters)
    assert torch.allclose(of_loss, reinforce, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("sign", "moved", "vanishes"), [(1, 1, True), (1, -1, False), (-1, 1, False), (-1, -1, True)]
)
def test_gradient_vanishes_in_exactly_two_of_the_four_clipped_cases(
    make: Make, sign: int, moved: int, vanishes: bool
) -> None:
    """A row has no gradient if its ratio is above 1 + ε and A > 0, or below 1 - ε and A < 0."""
    trainer = make("algo=ppo", "env=CartPole-v1", "algo.normalize_advantage=off")
    _, batch = collected(trainer)
    policy = trainer.agent.policy
    now = policy(batch.obs).log_prob(batch.action).detach()
    outside = replace(batch, log_prob=now - moved * 0.5, advantage=sign * torch.ones(len(batch)))
    g = gradient(trainer.algorithm._policy_loss(policy, outside), list(policy.parameters()))
    assert (float(g.norm()) == 0) == vanishes


def test_without_advantage_the_policy_stays_and_entropy_moves_it(make: Make) -> None:
    for coefficient, moves in ((0.0, False), (0.01, True)):
        trainer = make(
            "algo=ppo",
            "env=CartPole-v1",
            "algo.normalize_advantage=off",
            f"algo.entropy_coefficient={coefficient}",
        )
        rollout, batch = collected(trainer)
        flat = replace(batch, advantage=torch.zeros(len(batch)))
        trainer.algorithm.estimate = lambda agent, rollout, flat=flat: flat
        # The first policy is nearly uniform, where entropy has no gradient: tilt it.
        with torch.no_grad():
            trainer.agent.policy.net[-1].bias[0] += 1.0
        start = flatten(trainer.agent.policy.parameters())
        before = float(trainer.agent.policy(batch.obs).entropy().mean().detach())
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        assert torch.equal(flatten(trainer.agent.policy.parameters()), start) != moves
        if moves:
            assert float(trainer.agent.policy(batch.obs).entropy().mean().detach()) > before


def test_target_kl_ends_the_epochs(make: Make) -> None:
    loose = make("algo=ppo", "env=CartPole-v1", "optimizer.learning_rate=1e-2")
    rollout, _ = collected(loose)
    assert loose.algorithm.update(loose.agent, loose.learner, rollout, 0.0)["epochs"] == 10
    tight = make("algo=ppo", "env=CartPole-v1", "optimizer.learning_rate=1e-2", "algo.target_kl=1e-4")
    rollout, _ = collected(tight)
    assert tight.algorithm.update(tight.agent, tight.learner, rollout, 0.0)["epochs"] == 1


@pytest.mark.parametrize("by", [0.2, -0.2])
@pytest.mark.parametrize(("factor", "epochs"), [(0.99, 3), (1.01, 4)])
def test_epochs_end_with_the_first_whose_kl_from_the_old_policy_exceeds_target_kl(
    by: float, factor: float, epochs: int
) -> None:
    """The KL is KL(old || new); the reverse differs if the standard deviation changes."""
    target_kl = factor * kl_of_widening(3 * by)
    policy = GaussianPolicy(torch.nn.Linear(1, 1), 1, log_std_init=0.0)
    obs, ones = as_observations(torch.zeros(4, 1)), torch.ones(4)
    batch = Batch(obs, torch.zeros(4, 1), ones, ones, ones, ones)
    rule = PPO(0.99, 0.95, "off", 0.2, 10, 4, False, 0.0, None, target_kl)
    rule.estimate = lambda agent, rollout: batch
    learner = Learner(Widening(policy, policy.log_std, by), NoSteps(Zero()), Eager(), torch.Generator())
    metrics = rule.update(Agent(policy, Zero(), Identity()), learner, None, 0.0)
    assert metrics["epochs"] == epochs


def test_learning_rates_fall_to_nothing_over_training(make: Make) -> None:
    trainer = make(
        "algo=ppo", "env=CartPole-v1", "optimizer.schedule=linear", "critic_optimizer.schedule=linear"
    )
    rollout, _ = collected(trainer)
    rates = [
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, p)["learning_rate"]
        for p in (0.0, 0.25, 0.5)
    ]
    assert rates == pytest.approx([3e-4, 2.25e-4, 1.5e-4])
    start = flatten(trainer.agent.policy.parameters())
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 1.0)
    assert torch.equal(flatten(trainer.agent.policy.parameters()), start)


def test_advantages_are_normalized_over_the_configured_rows(make: Make) -> None:
    trainer = make("algo=ppo", "env=CartPole-v1", "algo.normalize_advantage=batch")
    _, batch = collected(trainer)
    assert float(batch.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(batch.advantage.std(correction=0)) == pytest.approx(1, abs=1e-4)
    # Over the minibatch: the loss does not notice a shift and a scaling of its advantages.
    trainer = make("algo=ppo", "env=CartPole-v1", "algo.normalize_advantage=minibatch")
    _, batch = collected(trainer)
    moved = replace(batch, advantage=3 * batch.advantage + 7)
    losses = [trainer.algorithm._policy_loss(trainer.agent.policy, rows) for rows in (batch, moved)]
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), abs=1e-5)


def test_value_clipping_holds_the_critic_near_its_old_estimate(make: Make) -> None:
    moves = {}
    for clip in ("null", "1e-3"):
        trainer = make(
            "algo=ppo", "env=CartPole-v1", f"algo.value_clip={clip}", "critic_optimizer.learning_rate=1e-2"
        )
        rollout, batch = collected(trainer)
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        moves[clip] = float((trainer.agent.critic(batch.obs) - batch.value).abs().mean().detach())
    assert moves["1e-3"] < moves["null"] / 2


@pytest.mark.parametrize("recompute", [True, False])
def test_two_passes_with_advantages_recomputed_are_two_updates_of_one_pass(
    make: Make, recompute: bool
) -> None:
    """Without recomputation they differ, because the critic has changed before the second pass."""
    common = ["algo=ppo", "env=CartPole-v1", "critic_optimizer.learning_rate=1e-2"]
    whole = make(*common, "algo.epochs=2", f"algo.recompute_advantages={recompute}", name="whole")
    parts = make(*common, "algo.epochs=1", name="parts")
    rollout = whole.runner.collect(whole.agent)
    whole.algorithm.update(whole.agent, whole.learner, rollout, 0.0)
    for _ in range(2):
        parts.algorithm.update(parts.agent, parts.learner, rollout, 0.0)
    assert torch.equal(parameters(whole), parameters(parts)) == recompute
