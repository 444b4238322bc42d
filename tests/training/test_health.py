"""Health is what its definitions say, around a real update, and the same for every rule."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from pgx.algos import rules
from pgx.algos.common.advantages import gae_batch, rollout_observations
from pgx.algos.common.surrogate import surrogate_and_gradient
from pgx.compiler import Eager
from pgx.core.agent import Agent
from pgx.core.data import Batch, Rollout
from pgx.core.ranks import SINGLE_PROCESS, Shard
from pgx.core.specs import Continuous, Discrete
from pgx.envs.normalizers import ObservationNormalizer
from pgx.networks.mlp import MLPCritic, MLPPolicy
from pgx.ops.params import assign, flatten
from pgx.runs.metrics import COMMON, tagged, tags_of
from pgx.training import health
from pgx.training.loop import Counters
from pgx.training.trainer import Trainer
from tests.algos.common.test_advantages import VECTOR as OBS
from tests.algos.common.test_advantages import agent_for, rollout_with_reset_rows
from tests.conftest import Make, as_observations, small


def looked(
    make: Make, name: str, env: str = "env=Pendulum-v1", policy: Sequence[str] = ()
) -> tuple[Trainer, Batch, health.BeforeUpdate]:
    trainer = make(*small(name), env, *policy)
    rollout = trainer.runner.collect(trainer.agent)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    return trainer, batch, health.before_update(trainer.agent, batch)


def test_an_agent_that_did_not_move_is_at_rest(make: Make) -> None:
    trainer, _, before = looked(make, "trpo")
    metrics = health.measure(before, trainer.agent, trainer.learner.engine, 0.2)
    for key in (
        "kl",
        "kl_max",
        "kl_reverse",
        "clip_fraction",
        "surrogate_gain",
        "predicted_gain",
        "step_norm",
    ):
        assert metrics[key] == 0, key
    for key in ("ess", "ratio_min", "ratio_max"):
        assert metrics[key] == pytest.approx(1, abs=1e-5)
    assert metrics["explained_variance"] == metrics["explained_variance_after"]


def test_predicted_gain_is_the_first_order_of_the_actual_gain(make: Make) -> None:
    """gain(t d) = t g·d + O(t²): a tenth of the step, a hundredth of the difference."""
    trainer, batch, before = looked(make, "trpo", "env=CartPole-v1")
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    start = flatten(parameters)
    _, slope = surrogate_and_gradient(policy, batch, policy(batch.obs))
    differences = []
    for size in (1.0, 0.1):
        assign(parameters, start + size * slope)
        metrics = health.measure(before, trainer.agent, trainer.learner.engine, 0.2)
        assert metrics["predicted_gain"] == pytest.approx(size * float(slope.square().sum()), rel=1e-3)
        differences.append(abs(metrics["surrogate_gain"] - metrics["predicted_gain"]))
    assert differences[1] < differences[0] / 30


ROWS, WIDE = 200, Continuous((2,))


def gaussian_agent() -> Agent:
    generator = torch.Generator().manual_seed(0)
    policy = MLPPolicy([8], "tanh", 1.0, 1.0, log_std_init=-0.5, continuous="gaussian").make(
        OBS, WIDE, generator
    )
    critic = MLPCritic([8], "tanh", 1.0, 1.0).make(OBS, WIDE, generator)
    return Agent(policy, critic, ObservationNormalizer(OBS, 10.0, torch.device("cpu")))


def test_every_health_metric_is_its_own_definition() -> None:
    """After changes of policy, critic and advantages that no two metrics tell alike, by torch's own distributions."""
    agent, generator = gaussian_agent(), torch.Generator().manual_seed(1)
    obs = as_observations(torch.randn(ROWS, 3, generator=generator))
    with torch.no_grad():
        old, value = agent.policy(obs).detach(), agent.critic(obs)
        action = old.sample(generator)
    batch = Batch(
        obs=obs,
        action=action,
        log_prob=old.log_prob(action),
        value=value,
        advantage=3.0 + 0.7 * torch.randn(ROWS, generator=generator),
        value_target=value + torch.randn(ROWS, generator=generator),
    )
    advantage, target = batch.advantage, batch.value_target
    before, parameters = health.before_update(agent, batch), list(agent.policy.parameters())
    start = flatten(parameters)
    weighted = ((agent.policy(batch.obs).log_prob(batch.action) - batch.log_prob).exp() * advantage).mean()
    slope = torch.cat([part.flatten() for part in torch.autograd.grad(weighted, parameters)])
    with torch.no_grad():
        for part in (*parameters, *agent.critic.parameters()):
            part += 0.1 * torch.randn(part.shape, generator=generator)
    found = health.measure(before, agent, Eager(), 0.3)
    with torch.no_grad():
        new, critic = agent.policy(batch.obs), agent.critic(batch.obs)
        ratio = (new.log_prob(batch.action) - batch.log_prob).exp()
        first, second = (torch.distributions.Normal(d.mean, d.log_std.exp()) for d in (old, new))
        kl = torch.distributions.kl_divergence(first, second).sum(-1)
        back = torch.distributions.kl_divergence(second, first).sum(-1)
        step = flatten(parameters) - start
        expected = {
            "kl": kl.mean(),
            "kl_max": kl.max(),
            "kl_reverse": back.mean(),
            "entropy": second.entropy().sum(-1).mean(),
            "ess": ratio.sum().square() / (len(ratio) * ratio.square().sum()),
            "clip_fraction": ((ratio < 0.7) | (ratio > 1.3)).double().mean(),
            "ratio_min": ratio.min(),
            "ratio_max": ratio.max(),
            "surrogate_gain": (ratio * advantage).mean() - weighted,
            "predicted_gain": (slope * step).sum(),
            "gradient_norm": slope.square().sum().sqrt(),
            "step_norm": step.square().sum().sqrt(),
            "explained_variance": 1 - (target - batch.value).var() / target.var(),
            "explained_variance_after": 1 - (target - critic).var() / target.var(),
            "advantage_mean": advantage.mean(),
            "advantage_std": advantage.std(correction=0),
        }
    assert found == pytest.approx({key: float(value) for key, value in expected.items()}, rel=1e-3)
    told = sorted(map(float, expected.values()))
    assert all(b - a > 0.01 * abs(b) for a, b in itertools.pairwise(told)), "two of them tell the same"
    wider = health.measure(before, agent, Eager(), 0.6)
    assert wider["clip_fraction"] == pytest.approx(float(((ratio - 1).abs() > 0.6).double().mean()))
    assert wider["clip_fraction"] < found["clip_fraction"]


def test_the_normaliser_s_kl_is_of_the_old_statistics_to_the_present_ones() -> None:
    agent, rollout = agent_for(OBS), rollout_with_reset_rows(0)
    through = health.before_normalizer_update(agent, rollout)
    old = agent.policy(rollout_observations(agent, rollout))
    agent.normalizer.observe(5.0 + 3.0 * rollout.obs[rollout.valid])
    new = agent.policy(rollout_observations(agent, rollout))
    there, back = (float(kl.mean().detach()) for kl in (old.kl(new), new.kl(old)))
    assert through is not None
    assert health.normalizer_kl(through, agent, SINGLE_PROCESS) == pytest.approx(there, rel=1e-4)
    assert there != pytest.approx(back, rel=1e-3)


@pytest.mark.parametrize("steps", [100, 9000])
def test_measured_rows_are_spread_over_the_rollout(steps: int) -> None:
    """Over its whole length, and none of them only resets."""
    valid = torch.rand(steps, 3, generator=torch.Generator().manual_seed(0)) < 0.8
    kept = health._thinned(valid)
    rows = int(valid.sum())
    assert not (kept & ~valid).any()
    assert (
        int(kept.sum()) == rows
        if rows <= health.NORMALIZER_KL_ROWS
        else health.NORMALIZER_KL_ROWS <= kept.sum() < 2 * health.NORMALIZER_KL_ROWS
    )
    quarters = [int(quarter.sum()) for quarter in kept.tensor_split(4)]
    assert max(quarters) < 1.3 * min(quarters)


def test_rewards_at_either_bound_count_as_clipped() -> None:
    agent, rollout = agent_for(OBS), rollout_with_reset_rows(0)
    batch = gae_batch(agent, rollout, 0.9, 0.8, normalize=False)
    reward = torch.full((len(batch),), 0.5)
    reward[:3], reward[3:8] = 2.0, -2.0
    found = health.clipping(batch, agent, Discrete(2), reward, 2.0)
    assert found == {"clipped_reward_fraction": pytest.approx(8 / len(batch))}


@pytest.mark.parametrize("name", rules())
def test_health_agrees_with_its_definitions_after_an_update(make: Make, name: str) -> None:
    trainer, batch, before = looked(make, name)
    old = trainer.agent.policy(batch.obs).detach()
    start = flatten(trainer.agent.policy.parameters())
    rollout = trainer.runner.collect(trainer.agent)
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    metrics = health.measure(before, trainer.agent, trainer.learner.engine, 0.05)
    with torch.no_grad():
        new = trainer.agent.policy(batch.obs)
        ratio = (new.log_prob(batch.action) - batch.log_prob).exp()
        normal_old = torch.distributions.Normal(old.mean, old.log_std.exp())
        normal_new = torch.distributions.Normal(new.mean, new.log_std.exp())
        kl = torch.distributions.kl_divergence(normal_old, normal_new).sum(-1)
    assert metrics["kl"] == pytest.approx(float(kl.mean()), abs=1e-6) and metrics["kl"] > 0
    assert metrics["kl_max"] == pytest.approx(float(kl.max()), abs=1e-6)
    assert metrics["entropy"] == pytest.approx(float(normal_new.entropy().sum(-1).mean()), abs=1e-5)
    assert metrics["ess"] == pytest.approx(
        float(ratio.sum() ** 2 / (len(ratio) * ratio.square().sum())), rel=1e-4
    )
    assert metrics["clip_fraction"] == pytest.approx(
        float(((ratio - 1).abs() > 0.05).float().mean()), abs=1e-3
    )
    assert (metrics["ratio_min"], metrics["ratio_max"]) == pytest.approx(
        (float(ratio.min()), float(ratio.max()))
    )
    moved = flatten(trainer.agent.policy.parameters()) - start
    assert metrics["step_norm"] == pytest.approx(float(moved.norm()))
    assert set(tagged(metrics, tags_of({}))) <= {m.tag for m in COMMON if m.tag.startswith("health/")}


def test_looking_changes_nothing(make: Make) -> None:
    trainer, _, before = looked(make, "ppo")
    assert torch.equal(before.parameters, flatten(trainer.agent.policy.parameters()))
    assert all(p.grad is None for p in trainer.agent.policy.parameters())
    health.measure(before, trainer.agent, trainer.learner.engine, 0.2)
    assert torch.equal(before.parameters, flatten(trainer.agent.policy.parameters()))


def test_without_a_critic_there_is_no_explained_variance(make: Make) -> None:
    trainer, _, before = looked(make, "reinforce", "env=CartPole-v1")
    said = tagged(health.measure(before, trainer.agent, trainer.learner.engine, 0.2), tags_of({}))
    assert "health/kl" in said
    assert not any("explained_variance" in tag for tag in said)


class Spread(gymnasium.Env[Any, Any]):
    """Takes two actions within +-1 and pays 100 at the first step of an episode, a little at others."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        reward = 100.0 if self.count == 1 else float(action[0])
        return np.zeros(1, np.float32), reward, self.count == 10, False, {}


if "Spread-v0" not in gymnasium.registry:
    gymnasium.register("Spread-v0", Spread)


@pytest.mark.parametrize("continuous", ["gaussian", "squashed_gaussian"])
def test_clipped_rewards_and_actions_are_counted(
    make: Make, continuous: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make("algo=ppo", "env=Spread-v0", f"policy.continuous={continuous}", "env.reward_clip=2.0")
    rollouts: list[Rollout] = []
    collect = trainer.runner.collect  # type: ignore[attr-defined]

    def kept(agent: Any) -> Rollout:
        rollouts.append(collect(agent))
        return rollouts[-1]

    monkeypatch.setattr(trainer.runner, "collect", kept)
    metrics = trainer.loop.next(trainer.counters).metrics
    (rollout,) = rollouts
    action, reward = rollout.action[rollout.valid], rollout.reward[rollout.valid]
    outside = float((action.abs() > 1.0).float().mean()) if continuous == "gaussian" else 0.0
    clipped = float((reward.abs() == 2.0).float().mean())
    assert metrics is not None
    assert metrics["clipped_action_fraction"] == pytest.approx(outside)
    assert metrics["clipped_reward_fraction"] == pytest.approx(clipped)
    assert 0 < clipped < 0.5 and (outside > 0.1) == (continuous == "gaussian")


def test_nothing_without_a_bound_counts_as_clipped(make: Make) -> None:
    iterations = make("algo=ppo", "env=CartPole-v1", "env.scale_reward=false").loop
    metrics = iterations.next(Counters()).metrics
    assert metrics is not None and not {"clipped_action_fraction", "clipped_reward_fraction"} & metrics.keys()


class EmptyHanded:
    """The second of two ranks, which has no valid row in this rollout; the other has all four, one of them beyond."""

    rank, size, local_size = 1, 2, 2

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        assert len(rows) == 0 and all(bool(mean.isnan()) for mean in means)
        return tuple(torch.full_like(mean, 0.25) for mean in means)

    def gather(self, own: Any) -> list[Any]:
        return [own, own]


@pytest.mark.parametrize("policy", [["policy.continuous=squashed_gaussian"], [], ["policy=gru"]], ids=str)
def test_a_rank_without_valid_rows_takes_part_in_the_clipped_fractions(make: Make, policy: list[str]) -> None:
    trainer, batch, _ = looked(make, "ppo", policy=policy)
    none = torch.zeros(0, dtype=torch.int64)
    empty = replace(batch, shard=Shard(EmptyHanded(), 4, torch.arange(len(batch)))).rows(none)
    action = trainer.runner.envs.action_spec
    metrics = health.clipping(empty, trainer.agent, action, torch.zeros(0), 10.0)
    assert metrics == {"clipped_reward_fraction": 0.25, "clipped_action_fraction": 0.25}
