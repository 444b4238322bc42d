"""The loop in the open ends with the parameters of pgx.train, and forgets nothing that the trainer does."""

from typing import Any

import gymnasium
import pytest
import torch

import pgx
from pgx.core.agent import Agent


def open_loop(overrides: dict[str, Any], rule: Any, policy: Any, optimizer: Any) -> Agent:
    envs = pgx.create_envs("Pendulum-v1", num_envs=4, overrides=overrides)
    agent = pgx.create_agent(envs, policy, pgx.MLPCritic(hidden=[16]), seed=3)
    learner = pgx.create_learner(agent, optimizer, pgx.Adam(learning_rate=1e-3), seed=3)
    with pgx.step_collector(envs, agent, rollout_steps=32, total_steps=1024, seed=3) as collector:
        for rollout in collector:
            metrics = rule.update(agent, learner, rollout, collector.progress)
            assert set(metrics) and collector.steps <= 1024 + 128
    return agent


@pytest.mark.parametrize("scale_reward", [True, False])
@pytest.mark.parametrize("algo", ["trpo", "ppo"])
def test_the_open_loop_ends_with_the_bits_of_train(algo: str, scale_reward: bool) -> None:
    """With a warm-up of the statistics, and normalizers of observations and rewards."""
    of_env = {"env.normalizer_warmup_steps": 64, "env.scale_reward": scale_reward}
    small = {"critic_epochs": 2} if algo == "trpo" else {"epochs": 2}
    discount = envs_discount()
    rule = pgx.TRPO(discount=discount, **small) if algo == "trpo" else pgx.PPO(discount=discount, **small)
    policy = pgx.MLPPolicy(hidden=[16])
    optimizer = None if algo == "trpo" else pgx.Adam(learning_rate=1e-3)
    agent = open_loop(of_env, rule, policy, optimizer)
    run = pgx.train(
        rule,
        "Pendulum-v1",
        policy=policy,
        critic=pgx.MLPCritic(hidden=[16]),
        optimizer=optimizer,
        # Every value, as the file of the rule sets others than configs/critic_optimizer.
        critic_optimizer=_all_values(pgx.Adam(learning_rate=1e-3)),
        total_steps=1024,
        seed=3,
        run_dir=None,
        progress=False,
        overrides={
            "env.num_envs": 4,
            "runner.rollout_steps": 32,
            "trainer.compile": False,
            "trainer.checkpoint_every": None,
            **({} if optimizer is None else _values("optimizer", optimizer)),
            **of_env,
        },
    )
    ours, theirs = agent.state_dict(), run.agent.networks.state_dict()
    for part in ("policy", "critic"):
        assert all(torch.equal(ours[part][name], value) for name, value in theirs[part].items()), part
    assert agent.normalizer.count == run.agent.networks.normalizer.count


def envs_discount() -> float:
    """Return the discount of the preset of the environment, which `pgx.train` gives to a rule without one."""
    envs = pgx.create_envs("Pendulum-v1", num_envs=1)
    envs.close()
    return envs.config.discount


def _all_values(spec: Any) -> Any:
    from dataclasses import fields

    return type(spec)(**{each.name: getattr(spec, each.name) for each in fields(spec)})


def _values(section: str, spec: Any) -> dict[str, Any]:
    from dataclasses import fields

    return {f"{section}.{each.name}": getattr(spec, each.name) for each in fields(spec)}


def test_a_collector_of_episodes_yields_whole_episodes() -> None:
    envs = pgx.create_envs(lambda: gymnasium.make("CartPole-v1"), num_envs=2)
    agent = pgx.create_agent(envs, pgx.LinearPolicy(), pgx.NoCritic(), seed=0)
    with pgx.episode_collector(envs, agent, 2, 500, total_steps=300, seed=0) as collector:
        for rollout in collector:
            assert len(collector.episodes) == 4
            assert int((rollout.done & rollout.valid).sum()) == 4 and rollout.valid.sum() <= collector.steps
    assert collector.recent_return == pytest.approx(collector.recent_return)


def test_create_envs_refuses_what_is_no_environment() -> None:
    with pytest.raises(pgx.ConfigError, match="did you mean 'CartPole-v1'"):
        pgx.create_envs("CartPol-v1")
    with pytest.raises(pgx.ConfigError, match=r"env\.num_envs: expected a whole number >= 1"):
        pgx.create_envs("CartPole-v1", num_envs=0)
