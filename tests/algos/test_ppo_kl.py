"""Tests of PPO with a KL penalty against its definition: effect of the penalty, adaptation of beta."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pgx.algos.ppo_kl import BETA_MAX, BETA_MIN
from pgx.core.agent import Distribution, Policy
from pgx.core.data import Batch, Rollout
from pgx.ops.params import flatten, gradient
from pgx.training.trainer import Trainer
from tests.conftest import Make, parameters, small

ENVS = ["env=CartPole-v1", "env=Pendulum-v1"]
OFF = "algo.normalize_advantage=off"


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


def tilted(trainer: Trainer, batch: Batch) -> Distribution:
    """Change the policy so that no divergence is 0; return the distributions before."""
    parameters = list(trainer.agent.policy.parameters())
    with torch.no_grad():  # between nearly uniform policies the two directions are alike
        parameters[-1][0] += 1.0
        old = trainer.agent.policy(batch.obs).detach()
        for p in parameters:
            p += 0.2 * torch.sin(torch.arange(p.numel()) + 1.0).view_as(p)
    return old


@pytest.mark.parametrize("env", ENVS)
def test_first_gradient_is_the_policy_gradient_whatever_beta(make: Make, env: str) -> None:
    trainer = make(*small("ppo_kl"), env, OFF, "algo.beta=100")
    _, batch = collected(trainer)
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    old = policy(batch.obs).detach()
    of_loss = gradient(
        -trainer.algorithm._policy_loss(policy, batch, old, torch.tensor(trainer.algorithm.beta)), parameters
    )
    reinforce = gradient((policy(batch.obs).log_prob(batch.action) * batch.advantage).mean(), parameters)
    assert torch.allclose(of_loss, reinforce, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("direction", ["old_new", "new_old"])
def test_away_from_the_old_policy_the_gradient_is_that_of_the_definition(
    make: Make, env: str, direction: str
) -> None:
    trainer = make(*small("ppo_kl"), env, OFF, "algo.beta=3", f"algo.kl_direction={direction}")
    _, batch = collected(trainer)
    old, policy = tilted(trainer, batch), trainer.agent.policy
    parameters = list(policy.parameters())

    def objective(swap: bool) -> Tensor:
        new = policy(batch.obs)
        gain = ((new.log_prob(batch.action) - batch.log_prob).exp() * batch.advantage).mean()
        pair = (new, old) if (direction == "new_old") != swap else (old, new)
        return gain - 3 * divergence(*pair, discrete="CartPole" in env).mean()

    actual = gradient(
        -trainer.algorithm._policy_loss(policy, batch, old, torch.tensor(trainer.algorithm.beta)), parameters
    )
    assert torch.allclose(actual, gradient(objective(swap=False), parameters), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(actual, gradient(objective(swap=True), parameters), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("direction", ["old_new", "new_old"])
def test_without_penalty_it_is_ascent_on_the_surrogate(make: Make, direction: str) -> None:
    """Take the same steps on the same minibatches explicitly, without clipping and without KL."""
    flags = [*small("ppo_kl"), "env=CartPole-v1", OFF, "algo.beta=0", f"algo.kl_direction={direction}"]
    ends = []
    for by_hand in (False, True):
        trainer = make(*flags)
        rollout, batch = collected(trainer)
        rule, policy = trainer.algorithm, trainer.agent.policy
        if by_hand:
            trainer.learner.anneal(0.0)

            def loss(policy: Policy, rows: Batch) -> Tensor:
                ratio = (policy(rows.obs).log_prob(rows.action) - rows.log_prob).exp()
                return -(ratio * rows.advantage).mean()

            for _ in range(rule.epochs):
                for index in batch.minibatches(rule.minibatch_size, trainer.learner.generator):
                    trainer.learner.optimizer.step(loss, batch.rows(index))
        else:
            rule.update(trainer.agent, trainer.learner, rollout, 0.0)
        ends.append(flatten(policy.parameters()))
    assert torch.allclose(ends[0], ends[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("env", ENVS)
def test_a_larger_beta_holds_the_policy_closer(make: Make, env: str) -> None:
    divergences = []
    for beta in (0, 10, 1e4):
        trainer = make(*small("ppo_kl"), env, f"algo.beta={beta}", "optimizer.learning_rate=1e-3")
        rollout, batch = collected(trainer)
        old = trainer.agent.policy(batch.obs).detach()
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        divergences.append(float(old.kl(trainer.agent.policy(batch.obs)).mean().detach()))
    free, held, still = divergences
    assert still < held < free / 2
    assert still < free / 20


def test_without_advantage_the_policy_stays_and_entropy_moves_it(make: Make) -> None:
    for coefficient in (0.0, 0.01):
        trainer = make(
            *small("ppo_kl"),
            "env=CartPole-v1",
            OFF,
            f"algo.entropy_coefficient={coefficient}",
            "optimizer=sgd",
            "optimizer.learning_rate=1e-2",
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
        moved = float((flatten(trainer.agent.policy.parameters()) - start).abs().max())
        if coefficient == 0:  # the gradient of a KL at 0 is 0 up to rounding
            assert moved < 1e-6
        else:
            assert moved > 1e-5
            assert float(trainer.agent.policy(batch.obs).entropy().mean().detach()) > before


@pytest.mark.parametrize("direction", ["old_new", "new_old"])
@pytest.mark.parametrize(
    ("relative", "factor"), [(1.6, 2.0), (1.4, 1.0), (1.0, 1.0), (1 / 1.4, 1.0), (1 / 1.6, 0.5)]
)
def test_beta_follows_the_kl_of_the_whole_batch_once_an_update(
    make: Make, direction: str, relative: float, factor: float
) -> None:
    """Set d_targ so that KL / d_targ = relative, from a first run with the same beta that measures the KL."""
    flags = [
        *small("ppo_kl"),
        "env=CartPole-v1",
        "algo.beta=0.7",
        f"algo.kl_direction={direction}",
        "optimizer.learning_rate=3e-3",
    ]
    first = make(*flags)
    rollout, batch = collected(first)
    old = first.agent.policy(batch.obs).detach()
    first.algorithm.update(first.agent, first.learner, rollout, 0.0)
    new = first.agent.policy(batch.obs).detach()
    forward, backward = (float(divergence(p, q, True).mean()) for p, q in ((old, new), (new, old)))
    assert abs(forward / backward - 1) > 1e-3
    kl = forward if direction == "old_new" else backward

    second = make(*flags, f"algo.kl_target={kl / relative}")
    rollout, _ = collected(second)
    assert second.algorithm.update(second.agent, second.learner, rollout, 0.0)["beta"] == 0.7
    assert second.learner.state["beta"] == pytest.approx(0.7 * factor, rel=1e-12)


def test_beta_is_adapted_by_the_direction_in_the_config(make: Make) -> None:
    """With a target between KL(old || new) and KL(new || old), one direction doubles beta and one halves it."""
    betas = {}
    for direction in ("old_new", "new_old"):
        flags = ["algo=ppo_kl", "env=CartPole-v1", "algo.beta=1e-3", f"algo.kl_direction={direction}"]
        flags.append("optimizer.learning_rate=1e-2")
        trainer = make(*flags)
        rollout, batch = collected(trainer)
        old = trainer.agent.policy(batch.obs).detach()
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        new = trainer.agent.policy(batch.obs).detach()
        forward, backward = (float(divergence(p, q, True).mean()) for p, q in ((old, new), (new, old)))
        assert forward > 2.5 * backward
        again = make(*flags, f"algo.kl_target={(forward * backward) ** 0.5}")
        again.algorithm.update(again.agent, again.learner, again.runner.collect(again.agent), 0.0)
        betas[direction] = again.learner.state["beta"]
    assert betas == {"old_new": 2e-3, "new_old": 5e-4}


def test_beta_adapted_goes_into_the_next_update(make: Make) -> None:
    trainer = make(*small("ppo_kl"), "env=CartPole-v1", "algo.kl_target=10")
    used = [
        trainer.algorithm.update(trainer.agent, trainer.learner, trainer.runner.collect(trainer.agent), 0.0)[
            "beta"
        ]
        for _ in range(3)
    ]
    assert used == [1.0, 0.5, 0.25]


@pytest.mark.parametrize(("target", "beta", "end"), [(1e3, 1.5 * BETA_MIN, BETA_MIN), (1e-12, 9e3, BETA_MAX)])
def test_beta_stays_within_its_bounds(make: Make, target: float, beta: float, end: float) -> None:
    trainer = make(*small("ppo_kl"), "env=CartPole-v1", f"algo.kl_target={target}", f"algo.beta={beta}")
    for _ in range(2):
        trainer.algorithm.update(trainer.agent, trainer.learner, trainer.runner.collect(trainer.agent), 0.0)
    assert trainer.learner.state["beta"] == end


@pytest.mark.parametrize("target", ["1e3", "1e-9"])
def test_a_fixed_beta_stays(make: Make, target: str) -> None:
    trainer = make(
        *small("ppo_kl"),
        "env=CartPole-v1",
        "algo.adapt_beta=false",
        "algo.beta=3",
        f"algo.kl_target={target}",
    )
    for _ in range(2):
        metrics = trainer.algorithm.update(
            trainer.agent, trainer.learner, trainer.runner.collect(trainer.agent), 0.0
        )
        assert metrics["beta"] == 3 and not trainer.learner.state


def test_an_adapted_beta_is_saved_and_restored(make: Make) -> None:
    one, two = (make(*small("ppo_kl"), "env=CartPole-v1", "algo.kl_target=10") for _ in range(2))
    one.algorithm.update(one.agent, one.learner, one.runner.collect(one.agent), 0.0)
    two.learner.load_state_dict(copy.deepcopy(one.learner.state_dict()))
    assert one.learner.state["beta"] == two.learner.state["beta"] == 0.5
    rollout, _ = collected(two)
    assert two.algorithm.update(two.agent, two.learner, rollout, 0.0)["beta"] == 0.5


def test_advantages_are_normalized_over_the_configured_rows(make: Make) -> None:
    trainer = make(*small("ppo_kl"), "env=CartPole-v1", "algo.normalize_advantage=batch")
    _, batch = collected(trainer)
    assert float(batch.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(batch.advantage.std(correction=0)) == pytest.approx(1, abs=1e-4)
    trainer = make(*small("ppo_kl"), "env=CartPole-v1", "algo.normalize_advantage=minibatch")
    _, batch = collected(trainer)
    policy, old = trainer.agent.policy, trainer.agent.policy(batch.obs).detach()
    moved = replace(batch, advantage=3 * batch.advantage + 7)
    losses = [
        float(trainer.algorithm._policy_loss(policy, rows, old, torch.tensor(1.0)).detach())
        for rows in (batch, moved)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("recompute", [True, False])
def test_two_passes_with_advantages_recomputed_are_two_updates_of_one_pass(
    make: Make, recompute: bool
) -> None:
    """Without recomputation they differ, because the critic has changed before the second pass."""
    common = [
        *small("ppo_kl"),
        "env=CartPole-v1",
        "critic_optimizer.learning_rate=1e-2",
        "algo.adapt_beta=false",
        "algo.beta=0.0",
    ]
    whole = make(*common, "algo.epochs=2", f"algo.recompute_advantages={recompute}", name="whole")
    parts = make(*common, "algo.epochs=1", name="parts")
    rollout = whole.runner.collect(whole.agent)
    whole.algorithm.update(whole.agent, whole.learner, rollout, 0.0)
    for _ in range(2):
        parts.algorithm.update(parts.agent, parts.learner, rollout, 0.0)
    assert torch.equal(parameters(whole), parameters(parts)) == recompute
