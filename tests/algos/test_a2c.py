"""Tests of A2C against its definition: one step along the policy gradient of the n-step advantage."""

from dataclasses import replace

import pytest
import torch

from pgx.algos.common.advantages import rollout_values
from pgx.core.data import Batch, Rollout
from pgx.ops.params import flatten, gradient
from pgx.ops.returns import discounted_returns
from pgx.training.trainer import Trainer
from tests.conftest import Make

ENVS = ["env=CartPole-v1", "env=Pendulum-v1"]
PLAIN = ["optimizer=sgd", "optimizer.learning_rate=0.5", "critic_optimizer=sgd", "algo.entropy_coefficient=0"]


def collected(trainer: Trainer) -> tuple[Rollout, Batch]:
    rollout = trainer.runner.collect(trainer.agent)
    return rollout, trainer.algorithm.estimate(trainer.agent, rollout)


@pytest.mark.parametrize("env", ENVS)
def test_the_step_is_along_the_policy_gradient(make: Make, env: str) -> None:
    trainer = make("algo=a2c", env, *PLAIN)
    rollout, batch = collected(trainer)
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    g = gradient((policy(batch.obs).log_prob(batch.action) * batch.advantage).mean(), parameters)
    start = flatten(parameters)
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert torch.allclose(flatten(parameters) - start, 0.5 * g, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("env", ENVS)
def test_the_advantage_is_the_bootstrapped_return_minus_the_value(make: Make, env: str) -> None:
    """With λ = 1 the target is R of algorithm S3: rewards to the end of episode or rollout, then the critic."""
    trainer = make("algo=a2c", env)
    rollout, batch = collected(trainer)
    value, next_value = rollout_values(trainer.agent.critic, trainer.agent.normalizer, rollout)
    returns = discounted_returns(
        rollout.reward, next_value, rollout.terminated, rollout.truncated, trainer.algorithm.discount
    )
    assert torch.allclose(batch.advantage, (returns - value)[rollout.valid], atol=1e-4)
    assert torch.allclose(batch.value_target, returns[rollout.valid], atol=1e-4)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_advantage_is_normalised_where_asked_and_nothing_else(make: Make, normalize: bool) -> None:
    trainer = make("algo=a2c", "env=CartPole-v1", f"algo.normalize_advantage={normalize}")
    _, batch = collected(trainer)
    raw = batch.value_target - batch.value
    assert abs(float(raw.mean())) > 0.1
    expected = (raw - raw.mean()) / raw.std(correction=0) if normalize else raw
    assert torch.allclose(batch.advantage, expected, atol=1e-3)


def test_without_advantage_the_policy_stays_and_entropy_moves_it(make: Make) -> None:
    for coefficient in (0.0, 0.1):
        trainer = make("algo=a2c", "env=CartPole-v1", *PLAIN[:3], f"algo.entropy_coefficient={coefficient}")
        rollout, batch = collected(trainer)
        flat = replace(batch, advantage=torch.zeros(len(batch)))
        trainer.algorithm.estimate = lambda agent, rollout, flat=flat: flat
        with torch.no_grad():  # the first policy is nearly uniform, where entropy has no gradient: tilt it
            trainer.agent.policy.net[-1].bias[0] += 1.0
        start = flatten(trainer.agent.policy.parameters())
        before = float(trainer.agent.policy(batch.obs).entropy().mean().detach())
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        after = float(trainer.agent.policy(batch.obs).entropy().mean().detach())
        assert (
            after > before if coefficient else torch.equal(flatten(trainer.agent.policy.parameters()), start)
        )


def test_the_critic_descends_its_error(make: Make) -> None:
    trainer = make("algo=a2c", "env=CartPole-v1", *PLAIN)
    rollout, batch = collected(trainer)
    losses = [
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)["critic_loss"]
        for _ in range(3)
    ]
    assert losses[0] == pytest.approx(
        0.5 * float((batch.value - batch.value_target).square().mean()), rel=1e-4
    )
    assert losses[0] > losses[1] > losses[2]
