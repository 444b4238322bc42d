"""The statistics' warm-up: counted steps of the initial policy before the first update, from whatever source."""

import pytest
import torch

from pgx.runs.loggers.jsonl import read
from pgx.training.loop import SyncLoop
from pgx.training.trainer import Trainer
from tests.conftest import Make, parameters, resumed

PPO = ["algo=ppo", "env=CartPole-v1", "env.backend=gymnasium", "algo.epochs=1", "logger.every=1"]


def synchronous(trainer: Trainer) -> SyncLoop:
    assert isinstance(trainer.iterations, SyncLoop)
    return trainer.iterations


def count(trainer: Trainer) -> int | None:
    return trainer.agent.normalizer.seen


@pytest.mark.parametrize("rule", ["ppo", "reinforce"])
def test_the_statistics_exist_before_the_first_update(make: Make, rule: str) -> None:
    trainer = make(*PPO[1:3], f"algo={rule}", "env.normalizer_warmup_steps=50")
    start = parameters(trainer)
    report = synchronous(trainer).next(trainer.counters)
    assert not report.updated and report.metrics is None
    assert (
        50 <= report.steps == count(trainer) <= 50 + 4
    )  # whole steps of four environments, without reset rows
    assert torch.equal(parameters(trainer), start)
    scaler = trainer.runner.state_dict()["reward_scaler"]
    assert int(scaler["count"]) == report.steps
    assert synchronous(trainer).next(trainer.counters).updated
    assert not torch.equal(parameters(trainer), start)


def test_recorded_observations_warm_the_statistics_up_without_steps(make: Make) -> None:
    trainer = make(
        "algo=off_policy_reinforce", "env=CartPole-v1", "runner.episodes=4", "env.normalizer_warmup_steps=50"
    )
    report = synchronous(trainer).next(trainer.counters)
    assert (report.steps, report.updated) == (0, False)
    recorded = sum(len(t.reward) for t in trainer.runner.trajectories)  # type: ignore[attr-defined]
    assert count(trainer) == recorded


def test_a_warm_up_counts_as_steps_and_not_as_an_update(make: Make) -> None:
    trainer = make(*PPO, "env.normalizer_warmup_steps=2000")
    trainer.train()
    rows = read(trainer.run_dir / "metrics.jsonl")
    assert [row["time/iteration"] for row in rows] == [1.0, 2.0]
    # A tenth of 512 steps at most, and then two rollouts of 4 x 64.
    first = 52 + 256
    assert first - 30 < rows[0]["step"] <= first
    assert trainer.counters.iterations == 2


def test_the_first_update_moves_the_statistics_little(make: Make) -> None:
    counter = ["env=tests.environments:Counter-v0", "optimizer.learning_rate=0.01"]  # observations of 0 to 8
    moved = {}
    for steps in (0, 400):
        warmup = [f"env.normalizer_warmup_steps={steps}", "trainer.total_steps=4000"]
        trainer = make(*PPO, *counter, *warmup, name=f"w{steps}")
        trainer.total_steps = 500
        trainer.train()
        moved[steps] = read(trainer.run_dir / "metrics.jsonl")[0]["health/normalizer_kl"]
    assert 0 < moved[400] < 0.05 * moved[0]


def test_a_run_that_goes_on_right_after_the_warm_up_has_the_same_bits(make: Make) -> None:
    settings = [*PPO, "env.normalizer_warmup_steps=50", "trainer.checkpoint_every=40"]
    straight = make(*settings, name="straight")
    straight.train()
    again = resumed(make, *settings, at=1)
    assert again.counters.steps == straight.counters.steps
    assert torch.equal(parameters(again), parameters(straight))


def test_observations_as_they_come_need_no_warm_up(make: Make) -> None:
    trainer = make(*PPO, "env.normalize_obs=false", "env.normalizer_warmup_steps=50")
    report = synchronous(trainer).next(trainer.counters)
    assert report.updated and report.metrics is not None and "normalizer_kl" not in report.metrics
