"""Values of a config arrive where they are used: another value, and something else happens."""

import importlib
from dataclasses import replace

import pytest

from pgx.compiler import EngineChoice
from pgx.config.run_config import A3CConfig, with_values
from pgx.config.validate import validate
from pgx.training.build import a3c_spec, agent_spec, reward_clip
from pgx.training.loop import SyncLoop
from pgx.training.trainer import Trainer
from tests.conftest import Make, composed, evaluate

HERE = ["env=CartPole-v1", "env.backend=gymnasium"]
COUNTER = ["env=tests.environments:Counter-v0", "env.backend=gymnasium", "algo=a2c"]


def synchronous(trainer: Trainer) -> SyncLoop:
    assert isinstance(trainer.loop, SyncLoop)
    return trainer.loop


def test_bounds_and_statistics_of_observations_reach_the_agent() -> None:
    config = validate(composed(*HERE))
    assert agent_spec(with_values(config, {"env.obs_clip": 0.25})).obs_clip == 0.25
    assert agent_spec(with_values(config, {"env.obs_clip": None})).obs_clip == float("inf")
    for normalized in (True, False):
        plan = agent_spec(with_values(config, {"env.normalize_obs": normalized}))
        assert plan.normalize_obs is normalized
    for seed in (3, 4):
        assert agent_spec(with_values(config, {"seed": seed})).seed == seed


def test_rewards_are_scaled_and_bounded_as_configured() -> None:
    scaled = replace(validate(composed(*HERE)).env, scale_reward=True)
    assert reward_clip(replace(scaled, reward_clip=0.25)) == 0.25
    assert reward_clip(replace(scaled, reward_clip=None)) == float("inf")
    assert reward_clip(replace(scaled, scale_reward=False)) is None


@pytest.mark.parametrize("clip_range", [0.05, 0.7])
def test_workers_of_a3c_measure_health_by_the_config_s_clip_range(clip_range: float) -> None:
    config = validate(composed(*HERE, "algo=a3c", f"health.clip_range={clip_range}"))
    assert isinstance(config.runner, A3CConfig)
    plan = a3c_spec(config, config.runner, EngineChoice(False, "test"))
    assert plan.clip_range == clip_range


def test_the_clip_fraction_counts_by_the_config_s_clip_range(make: Make) -> None:
    """Every update moves some ratio by more than a millionth, and none by a hundred."""
    found = {}
    for clip_range in ("1e-6", "100.0"):
        small = [*COUNTER, "logger.every=1", f"health.clip_range={clip_range}"]
        metrics = synchronous(make(*small, name=clip_range)).next(make(*small).counters).metrics
        assert metrics is not None
        found[clip_range] = metrics["clip_fraction"]
    assert found["1e-6"] > 0.5 and found["100.0"] == 0


def test_evaluations_have_the_configured_number_and_length_of_episodes(make: Make) -> None:
    """Painted lasts so many steps as env.kwargs say, in evaluations too."""
    own = ["env=tests.environments:Painted-v0", "env.backend=gymnasium", "algo=a2c", "env.kwargs.steps=9"]
    for episodes, longest in ((3, 30), (7, 4)):
        few = [f"trainer.eval_episodes={episodes}", f"trainer.eval_max_steps={longest}"]
        played = evaluate(make(*own, *few, name=f"{episodes}"), 1)
        assert [episode.length for episode in played] == [min(9, longest)] * episodes


def test_evaluations_take_the_mode_of_a_policy(make: Make) -> None:
    """Echo pays its action: about 0 here, where a sample is some units away."""
    own = ["env=tests.environments:Echo-v0", "env.backend=gymnasium", "algo=a2c", "policy.log_std_init=2.0"]
    trainer = make(*own, "trainer.eval_episodes=4", "policy.output_gain=1e-9")
    assert all(abs(episode.episode_return) < 1e-3 for episode in evaluate(trainer, 0))


def test_evaluations_start_from_a_stream_of_their_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("pgx.training.build")
    asked: list[tuple[int, str, int]] = []
    derive = module.derive
    monkeypatch.setattr(module, "derive", lambda *given: asked.append(given) or derive(*given))  # type: ignore[func-returns-value]
    evaluate(make(*COUNTER, "seed=5", "trainer.eval_episodes=2"), 7)
    assert asked == [(5, "evaluation", 7)]


def test_each_network_has_its_own_optimizer_s_values(make: Make) -> None:
    rates = ["optimizer.learning_rate=1e-3", "critic_optimizer.learning_rate=4e-2"]
    trainer = make(
        *HERE, "algo=a2c", *rates, "optimizer.schedule=constant", "critic_optimizer.schedule=constant"
    )
    rollout = trainer.runner.collect(trainer.agent)  # type: ignore[attr-defined]
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert (metrics["learning_rate"], metrics["critic_learning_rate"]) == (1e-3, 4e-2)


def test_rewards_are_scaled_at_the_discount_of_the_rule(make: Make) -> None:
    """Which is the environment's unless a person says otherwise."""
    for override in ("algo.discount=0.5", "env.discount=0.5"):
        trainer = make(*HERE, "algo=a2c", override, name=override)
        scaler = trainer.runner.collector.reward_scaler  # type: ignore[attr-defined]
        assert scaler is not None and scaler.discount == trainer.algorithm.discount == 0.5


def test_the_loop_has_the_config_s_intervals_and_limits(make: Make) -> None:
    own = [
        "logger.every=3",
        "trainer.checkpoint_every=70",
        "trainer.keep_checkpoints=2",
        "trainer.total_steps=500",
    ]
    trainer = make(*COUNTER, *own, "trainer.on_nan=skip_update", "env.normalizer_warmup_steps=7")
    iterations = synchronous(trainer)
    assert (iterations.log_every, iterations.on_nan, iterations.warmup_steps) == (3, "skip_update", 7)
    assert (trainer.checkpoint_every.steps, trainer.writer.checkpoints.keep) == (70, 2)
    assert trainer.total_steps == iterations.total_steps == 500
