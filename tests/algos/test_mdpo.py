"""Tests of MDPO against its definition: the reverse KL, its coefficient, and the m steps of an iteration."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pgx.algos.mdpo import MDPO, STEP_SIZE_MIN
from pgx.core.agent import Distribution
from pgx.core.algorithm import Setting
from pgx.core.data import Batch, Rollout
from pgx.ops.params import flatten, gradient
from pgx.training.trainer import Trainer
from tests.conftest import Make, as_observations

ENVS = ["env=CartPole-v1", "env=Pendulum-v1"]


def collected(trainer: Trainer) -> tuple[Rollout, Batch]:
    rollout = trainer.runner.collect(trainer.agent)
    return rollout, trainer.algorithm.estimate(trainer.agent, rollout)


def divergence(p: Distribution, q: Distribution, discrete: bool) -> Tensor:
    """Return KL(p || q) of each row from torch.distributions."""
    if discrete:
        made = [torch.distributions.Categorical(logits=d.params[0]) for d in (p, q)]
        return torch.distributions.kl_divergence(*made)
    made = [torch.distributions.Normal(d.params[0], d.params[1].exp()) for d in (p, q)]
    return torch.distributions.kl_divergence(*made).sum(-1)


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("step_size", [1.0, 0.01])
def test_first_gradient_is_the_policy_gradient(make: Make, env: str, step_size: float) -> None:
    """KL(pi || pi_k) has its minimum 0 at pi_k, so that the first step does not depend on its coefficient."""
    trainer = make("algo=mdpo", env)
    _, batch = collected(trainer)
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    old = policy(batch.obs).detach()
    of_loss = gradient(
        -trainer.algorithm._policy_loss(policy, batch, old, torch.tensor(step_size)), parameters
    )
    reinforce = gradient((policy(batch.obs).log_prob(batch.action) * batch.advantage).mean(), parameters)
    assert torch.allclose(of_loss, reinforce, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("env", ENVS)
def test_away_from_the_old_policy_the_gradient_is_that_of_the_reversed_kl(make: Make, env: str) -> None:
    trainer = make("algo=mdpo", env)
    _, batch = collected(trainer)
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    with torch.no_grad():  # between nearly uniform policies the two directions are alike
        parameters[-1][0] += 1.0
        old = policy(batch.obs).detach()
        for p in parameters:
            p += 0.2 * torch.sin(torch.arange(p.numel()) + 1.0).view_as(p)

    def objective(swap: bool) -> Tensor:
        new = policy(batch.obs)
        gain = ((new.log_prob(batch.action) - batch.log_prob).exp() * batch.advantage).mean()
        pair = (old, new) if swap else (new, old)
        return gain - divergence(*pair, discrete="CartPole" in env).mean() / 0.25

    actual = gradient(-trainer.algorithm._policy_loss(policy, batch, old, torch.tensor(0.25)), parameters)
    assert torch.allclose(actual, gradient(objective(swap=False), parameters), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(actual, gradient(objective(swap=True), parameters), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("minibatch", ["null", "64"])
def test_without_advantage_the_policy_stays(make: Make, minibatch: str) -> None:
    trainer = make(
        "algo=mdpo",
        "env=CartPole-v1",
        f"algo.minibatch_size={minibatch}",
        "optimizer=sgd",
        "optimizer.learning_rate=1e-2",
    )
    rollout, batch = collected(trainer)
    flat = replace(batch, advantage=torch.zeros(len(batch)))
    trainer.algorithm.estimate = lambda agent, rollout: flat
    start = flatten(trainer.agent.policy.parameters())
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    # The gradient of a KL at 0 is 0 up to rounding.
    assert float((flatten(trainer.agent.policy.parameters()) - start).abs().max()) < 1e-6


def test_the_step_size_falls_with_progress_and_never_to_zero(make: Make) -> None:
    trainer = make("algo=mdpo", "env=CartPole-v1")
    rollout, _ = collected(trainer)
    sizes = [
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, p)["step_size"]
        for p in (0.0, 0.25, 0.9, 1.0)
    ]
    assert sizes == pytest.approx([1.0, 0.75, 0.1, STEP_SIZE_MIN])
    assert bool(flatten(trainer.agent.policy.parameters()).isfinite().all())


def test_late_in_training_an_update_moves_the_policy_less(make: Make) -> None:
    """The learning rate is constant, so that only the KL limits the change of the policy."""
    divergences = []
    for progress in (0.0, 0.9, 0.99):
        trainer = make(
            "algo=mdpo",
            "env=CartPole-v1",
            "algo.steps=40",
            "optimizer.schedule=constant",
            "optimizer.learning_rate=3e-3",
        )
        rollout, batch = collected(trainer)
        old = trainer.agent.policy(batch.obs).detach()
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, progress)
        divergences.append(float(old.kl(trainer.agent.policy(batch.obs)).mean().detach()))
    assert divergences[2] < divergences[1] / 2 < divergences[0] / 4


@pytest.mark.parametrize(("minibatch", "steps"), [("null", 1), ("null", 7), ("64", 3), ("64", 10)])
def test_an_update_takes_m_steps_of_the_size_asked_for(make: Make, minibatch: str, steps: int) -> None:
    """10 steps of 64 rows are two and a half passes over 256 rows."""
    trainer = make("algo=mdpo", "env=CartPole-v1", f"algo.minibatch_size={minibatch}", f"algo.steps={steps}")
    rollout, batch = collected(trainer)
    seen: list[Tensor] = []
    inner = trainer.algorithm._policy_loss

    def counted(policy: object, rows: Batch, old: Distribution, step_size: Tensor) -> Tensor:
        seen.append(rows.log_prob)
        assert len(old.params[0]) == len(rows)
        return inner(policy, rows, old, step_size)

    trainer.algorithm._policy_loss = counted
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    parts = 1 if minibatch == "null" else round(len(batch) / 64)
    assert len(seen) == steps
    assert all(abs(len(rows) - len(batch) / parts) < 1 for rows in seen)
    if steps >= parts:  # the first pass deals out every row once
        assert torch.equal(torch.cat(seen[:parts]).sort().values, batch.log_prob.sort().values)


def test_each_row_of_a_minibatch_meets_its_own_old_distribution(make: Make) -> None:
    trainer = make("algo=mdpo", "env=Pendulum-v1", "algo.minibatch_size=64", "algo.steps=6")
    rollout, _ = collected(trainer)
    inner, met = trainer.algorithm._policy_loss, [0]

    def watched(policy: object, rows: Batch, old: Distribution, step_size: Tensor) -> Tensor:
        met[0] += 1
        assert torch.allclose(old.log_prob(rows.action), rows.log_prob, atol=2e-5)
        return inner(policy, rows, old, step_size)

    trainer.algorithm._policy_loss = watched
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert met == [6]


def test_each_pass_over_the_minibatches_deals_out_every_row_in_a_new_order() -> None:
    rule = MDPO(0.99, 0.95, False, steps=6, minibatch_size=4, critic_epochs=0, critic_minibatch_size=4)
    rows = torch.zeros(12)
    batch = Batch(as_observations(rows.unsqueeze(1)), rows, rows, rows, rows, rows)
    parts = rule._minibatches(batch, torch.Generator().manual_seed(0))
    first, second = torch.cat(parts[:3]).tolist(), torch.cat(parts[3:]).tolist()
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_batches_that_do_not_divide_are_named(make: Make) -> None:
    rule = make("algo=mdpo", "env=CartPole-v1").algorithm
    setting = Setting(rollout_steps=64, num_envs=4, policy="mlp", critic="mlp", sequence_length=None)
    assert rule.conflicts(setting) == []
    rule = replace(rule, minibatch_size=100, critic_minibatch_size=96)
    said = rule.conflicts(setting)
    assert [line.split(":")[0] for line in said] == ["algo.critic_minibatch_size", "algo.minibatch_size"]
