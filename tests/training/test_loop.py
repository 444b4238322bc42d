"""Iterations of the synchronous loop: their order, their reports, the warm-up of statistics, and measured times."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pgx.algos.common.advantages import gae_batch
from pgx.compiler import Eager
from pgx.core.agent import Agent, Metrics
from pgx.core.algorithm import Learner
from pgx.core.data import Rollout
from pgx.core.specs import Continuous, Discrete
from pgx.envs.vector import Step
from pgx.rollouts import collector
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.runs.loggers.jsonl import read_rows
from pgx.training import health
from pgx.training import loop as iterations
from pgx.training.loop import SyncLoop, iterate
from pgx.training.trainer import Trainer
from tests.algos.common import test_advantages
from tests.conftest import Make, parameters, resumed_run
from tests.rollouts.test_collector import agent_for

A2C = ["algo=a2c", "env=CartPole-v1", "env.backend=gymnasium", "runner.rollout_steps=16", "logger.every=1"]


def synchronous(trainer: Trainer) -> SyncLoop:
    assert isinstance(trainer.loop, SyncLoop)
    return trainer.loop


def test_progress_is_the_used_fraction_of_the_budget(make: Make) -> None:
    trainer = make(*A2C, "trainer.total_steps=1000")
    iterations, seen, update = synchronous(trainer), list[float](), trainer.algorithm.update

    def noted(agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        seen.append(progress)
        return update(agent, learner, rollout, progress)

    trainer.algorithm.update = noted  # type: ignore[method-assign]
    for trainer.counters.steps in (0, 250, 1000, 1300):
        iterations.next(trainer.counters)
    assert seen == [0.0, 0.25, 1.0, 1.0]


def test_gradient_steps_are_of_one_update(make: Make) -> None:
    """Independent of earlier updates: a2c takes the same number in each."""
    trainer = make(*A2C)
    reports = [synchronous(trainer).next(trainer.counters) for _ in range(3)]
    counts = [report.metrics["gradient_steps"] for report in reports if report.metrics]
    assert len(counts) == 3 and len(set(counts)) == 1 and sum(counts) == trainer.learner.gradient_steps


def test_statistics_change_after_the_update_and_health_is_measured_around_it(make: Make) -> None:
    trainer = make(*A2C)
    agent, algorithm, order = trainer.agent, trainer.algorithm, list[tuple[str, int | None, torch.Tensor]]()

    def noted(name: str) -> None:
        original = getattr(algorithm, name)

        def asked(*given: Any) -> Any:
            order.append((name, agent.normalizer.count, parameters(trainer)))
            return original(*given)

        setattr(algorithm, name, asked)

    noted("estimate")
    noted("update")
    report = synchronous(trainer).next(trainer.counters)
    names = [name for name, _, _ in order]
    assert names[:2] == ["estimate", "update"] and {seen for _, seen, _ in order} == {0}
    assert torch.equal(order[0][2], order[1][2]) and not torch.equal(order[0][2], parameters(trainer))
    assert agent.normalizer.count == report.steps
    assert report.metrics is not None and report.metrics["kl"] > 0 and report.metrics["step_norm"] > 0


def test_every_nth_update_and_the_last_are_measured(make: Make) -> None:
    trainer = make(*A2C, "logger.every=3", "trainer.total_steps=100000")
    measured = []
    for trainer.counters.iterations in range(8):
        trainer.counters.steps = 99_999 if trainer.counters.iterations == 7 else 0
        measured.append(synchronous(trainer).next(trainer.counters).metrics is not None)
    assert measured == [False, False, True, False, False, True, False, True]


def test_a_skipped_update_has_no_metrics_and_changes_nothing(make: Make) -> None:
    trainer = make(*A2C, "trainer.on_nan=skip_update")
    before, update = parameters(trainer), trainer.algorithm.update

    def broken(*given: Any) -> Metrics:
        metrics = update(*given)
        with torch.no_grad():
            next(iter(trainer.agent.policy.parameters())).fill_(math.nan)
        return metrics

    trainer.algorithm.update = broken  # type: ignore[method-assign]
    report = synchronous(trainer).next(trainer.counters)
    assert report.skipped and report.updated and report.metrics is None and report.steps > 0
    assert torch.equal(parameters(trainer), before)


def test_a_rolled_back_iteration_leaves_no_episodes_and_no_draws(make: Make) -> None:
    trainer, straight = make(*A2C, name="undone"), make(*A2C, name="straight")
    iterations, update = synchronous(trainer), trainer.algorithm.update
    for each in (trainer, straight):
        report = synchronous(each).next(each.counters)
        each.counters.steps, each.counters.iterations = report.steps, 1
        each.runner.begin(1)

    def stopped(*given: Any) -> Any:
        raise KeyboardInterrupt

    trainer.algorithm.update = stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        iterations.next(trainer.counters)
    assert trainer.runner.episodes  # type: ignore[attr-defined]
    assert iterations.roll_back(trainer.counters) > 0
    assert trainer.runner.episodes == []  # type: ignore[attr-defined]
    trainer.algorithm.update = update  # type: ignore[method-assign]
    trainer.runner.begin(1)
    one, two = (synchronous(each).next(each.counters) for each in (trainer, straight))
    assert one.episodes == two.episodes and one.steps == two.steps
    assert torch.equal(parameters(trainer), parameters(straight))


PPO = ["algo=ppo", "env=CartPole-v1", "env.backend=gymnasium", "algo.epochs=1", "logger.every=1"]


def count(trainer: Trainer) -> int | None:
    return trainer.agent.normalizer.count


@pytest.mark.parametrize("rule", ["ppo", "reinforce"])
def test_statistics_are_warmed_up_before_the_first_update(make: Make, rule: str) -> None:
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


def test_a_dataset_warms_statistics_up_without_steps(make: Make) -> None:
    trainer = make(
        "algo=off_policy_reinforce", "env=CartPole-v1", "runner.episodes=4", "env.normalizer_warmup_steps=50"
    )
    report = synchronous(trainer).next(trainer.counters)
    assert (report.steps, report.updated) == (0, False)
    recorded = sum(len(t.reward) for t in trainer.runner.recorded)  # type: ignore[attr-defined]
    assert count(trainer) == recorded


def test_a_warm_up_counts_as_steps_and_not_as_an_update(make: Make) -> None:
    trainer = make(*PPO, "env.normalizer_warmup_steps=2000")
    trainer.train()
    rows = read_rows(trainer.run_dir / "metrics.jsonl")
    assert [row["time/iteration"] for row in rows] == [1.0, 2.0]
    # At most a tenth of 512 steps, then two rollouts of 4 x 64.
    first = 52 + 256
    assert first - 30 < rows[0]["step"] <= first
    assert trainer.counters.iterations == 2


def test_after_a_warm_up_the_first_update_changes_statistics_little(make: Make) -> None:
    counter = ["env=tests.environments:Counter-v0", "optimizer.learning_rate=0.01"]  # observations of 0 to 8
    moved = {}
    for steps in (0, 400):
        warmup = [f"env.normalizer_warmup_steps={steps}", "trainer.total_steps=4000"]
        trainer = make(*PPO, *counter, *warmup, name=f"w{steps}")
        trainer.total_steps = 500
        trainer.train()
        moved[steps] = read_rows(trainer.run_dir / "metrics.jsonl")[0]["health/normalizer_kl"]
    assert 0 < moved[400] < 0.05 * moved[0]


def test_a_run_resumed_after_the_warm_up_ends_with_the_same_bits(make: Make) -> None:
    settings = [*PPO, "env.normalizer_warmup_steps=50", "trainer.checkpoint_every=40"]
    straight = make(*settings, name="straight")
    straight.train()
    again = resumed_run(make, *settings, at=1)
    assert again.counters.steps == straight.counters.steps
    assert torch.equal(parameters(again), parameters(straight))


def test_raw_observations_need_no_warm_up(make: Make) -> None:
    trainer = make(*PPO, "env.normalize_obs=false", "env.normalizer_warmup_steps=50")
    report = synchronous(trainer).next(trainer.counters)
    assert report.updated and report.metrics is not None and "normalizer_kl" not in report.metrics


class Clock:
    """Clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def after(self, seconds: float, result: Any) -> Any:
        """Advance the clock and return a result."""
        self.now += seconds
        return result


def test_time_fractions_are_those_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collection takes 30 s (environments 16, policy 8), the estimate 5 s, the update 40 s, health 25 s."""
    clock, agent, rollout = (
        Clock(),
        test_advantages.agent_for(Continuous((3,))),
        test_advantages.rollout_with_ends(0),
    )
    batch = gae_batch(agent, rollout, 0.9, 0.8, normalize=False)
    learner: Any = SimpleNamespace(engine=Eager(), gradient_steps=0)
    envs = SimpleNamespace(action_spec=Discrete(2))
    monkeypatch.setattr(iterations, "time", clock)
    measure = health.measure
    monkeypatch.setattr(health, "measure", lambda *given: clock.after(25.0, measure(*given)))
    runner: Any = SimpleNamespace(env_seconds=100.0, policy_seconds=200.0, metrics=dict, envs=envs)

    def collect(agent: Any) -> Any:
        runner.env_seconds += 16.0
        runner.policy_seconds += 8.0
        return clock.after(30.0, rollout)

    runner.collect = collect
    rule: Any = SimpleNamespace(
        estimate=lambda agent, rollout: clock.after(5.0, batch),
        update=lambda *given: clock.after(40.0, {}),
    )
    _, metrics = iterate(agent, rule, learner, runner, 0.0, 0.2, None, lambda rollout: True)
    assert metrics is not None
    parts = ("environment_fraction", "policy_fraction", "update_fraction", "health_fraction")
    assert {key: metrics[key] for key in parts} == {
        "environment_fraction": 0.16,
        "policy_fraction": 0.08,
        "update_fraction": 0.40,
        "health_fraction": 0.30,
    }


class Slow:
    """Two environments: sending an action takes 1 s, receiving the step 10 s."""

    id, backend, num_envs = "Slow-v0", "test", 2
    obs_spec, action_spec = Continuous((3,)), Discrete(2)
    action_mask = success = None

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def reset(self, seed: int) -> np.ndarray:
        return np.zeros((2, 3), np.float32)

    def send(self, action: np.ndarray) -> None:
        self.clock.now += 1.0

    def receive(self) -> Step:
        never = np.zeros(2, dtype=bool)
        return self.clock.after(10.0, Step(np.zeros((2, 3), np.float32), np.zeros(2), never, never))  # type: ignore[no-any-return]

    def close(self) -> None:
        """Do nothing."""


def test_times_of_environments_and_policy_are_measured_separately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(collector, "time", clock)
    envs: Any = Slow(clock)
    agent, rollout_collector = (
        agent_for(envs, "mlp"),
        RolloutCollector(envs, None, 0, 0, torch.device("cpu"), Eager()),
    )
    rollout_collector.begin(0)
    rollout_collector.advance(
        agent, RolloutBuffer(capacity=9), 1
    )  # the first step also finds the shape of the noise
    before = rollout_collector.env_seconds, rollout_collector.policy_seconds
    assert isinstance(agent.policy, torch.nn.Module)
    agent.policy.register_forward_hook(lambda module, given, result: clock.after(100.0, result))
    rollout_collector.advance(agent, RolloutBuffer(capacity=9), 3)
    assert (rollout_collector.env_seconds - before[0], rollout_collector.policy_seconds - before[1]) == (
        33.0,
        300.0,
    )


@pytest.mark.parametrize("policy", ["mlp", "two_headed", "gru"])
def test_a_gaussian_policy_reports_its_mean_standard_deviation(make: Make, policy: str) -> None:
    algo = "ppg" if policy == "two_headed" else "ppo"
    trainer = make(f"algo={algo}", "env=Pendulum-v1", f"policy={policy}", "env.backend=gymnasium")
    trainer.train()
    (spread,) = [p for name, p in trainer.agent.policy.state_dict().items() if name.endswith("log_std")]
    row = read_rows(trainer.run_dir / "metrics.jsonl")[-1]
    assert row["policy/std"] == pytest.approx(float(spread.exp().mean()), rel=1e-6) != 1.0


def test_a_policy_of_discrete_actions_reports_no_standard_deviation(make: Make) -> None:
    trainer = make("algo=ppo", "env=CartPole-v1")
    trainer.train()
    assert "policy/std" not in read_rows(trainer.run_dir / "metrics.jsonl")[-1]
