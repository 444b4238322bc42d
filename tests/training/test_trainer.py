"""The loop: budgets, folders, best and last, and a resumed run that is the run it resumes."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pgx.algos import rules
from pgx.config.compose import compose
from pgx.core.agent import Agent, Metrics
from pgx.core.algorithm import Learner
from pgx.core.data import Rollout
from pgx.core.periodic import PeriodicTrigger
from pgx.rollouts.sources import Episode
from pgx.runs.loggers.jsonl import read_rows
from pgx.runs.writer import PendingCheckpoint
from pgx.training.callbacks import STOP, Stop, TrainingState, as_callback
from pgx.training.loop import RECENT_EPISODES, Counters, IterationReport
from pgx.training.trainer import Trainer
from tests.conftest import Make, evaluate, parameters, small, stop_when

RULES = rules()


def test_a_run_leaves_what_is_needed_to_read_evaluate_and_resume_it(make: Make, tmp_path: Path) -> None:
    trainer = make(
        *small("ppo"), "env=CartPole-v1", "trainer.checkpoint_every=256", "trainer.total_steps=1000"
    )
    summary = trainer.train()
    run = tmp_path / "run"
    assert summary == json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["error"] is None
    assert 1000 <= summary["steps"] < 1000 + 256
    assert summary["iterations"] == len(read_rows(run / "metrics.jsonl"))
    names = {p.stem for p in (run / "checkpoints").iterdir()}
    assert {"last", "best", f"step_{summary['steps']:012d}"} <= names
    assert len(names) >= 2 + 3  # one a multiple of 256 passed, one at the end
    assert compose([]).keys() == build_config(run).keys()


def build_config(run: Path) -> dict[str, object]:
    from omegaconf import OmegaConf

    container = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def test_metrics_are_of_the_environment_steps_and_raw_returns(make: Make, tmp_path: Path) -> None:
    trainer = make(*small("trpo"), "env=CartPole-v1", "env.scale_reward=true", "trainer.total_steps=1000")
    trainer.train()
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    for row in rows:
        # In CartPole a step earns 1: raw return and length are the same number.
        assert row["rollout/episode_return"] == row["rollout/episode_length"]
        shares = [row[f"time/{part}_fraction"] for part in ("environment", "policy", "update", "health")]
        assert all(share >= 0 for share in shares) and sum(shares) <= 1
        assert row["health/kl"] <= 0.1


@pytest.mark.parametrize(
    ("name", "backend"),
    [  # a2c and ppo on EnvPool, npg and trpo on Gymnasium; the others in `make test-all`
        pytest.param(
            name, f"env.backend={backend}", marks=[] if (number + 3 * place) % 6 == 3 else pytest.mark.system
        )
        for number, name in enumerate(RULES)
        for place, backend in enumerate(("gymnasium", "envpool"))
    ],
)
def test_a_run_resumed_from_a_checkpoint_ends_with_the_bits_of_one_that_went_on(
    make: Make, tmp_path: Path, name: str, backend: str
) -> None:
    settings = [
        *small(name),
        "env=Hopper-v4",
        backend,
        "trainer.total_steps=1500",
        "trainer.checkpoint_every=500",
        "logger.every=3",  # a checkpoint between two looks: what ended since the last one belongs to the next
    ]
    whole = make(*settings, name="whole")
    whole.train()
    cut = make(*settings, name="cut")
    collect, saved = cut.runner.collect, cut.writer.write_checkpoint

    def save_once(unwritten: PendingCheckpoint) -> None:
        saved(unwritten)
        cut.runner.collect = stop

    def stop(agent: object) -> None:
        raise KeyboardInterrupt

    cut.writer.write_checkpoint = save_once
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    assert collect is not None and cut.counters.steps < 1000
    resumed = make(*settings, name="cut")
    resumed.load_state_dict(resumed.writer.checkpoints.load("last"))
    resumed.train()
    assert torch.equal(parameters(whole), parameters(resumed))
    rows = [read_rows(tmp_path / run / "metrics.jsonl") for run in ("whole", "cut")]
    stripped = [[{k: v for k, v in row.items() if not k.startswith("time/")} for row in run] for run in rows]
    assert stripped[0] == stripped[1]


def test_an_update_receives_the_used_fraction_of_the_step_budget(make: Make) -> None:
    trainer = make("algo=a2c", "env=CartPole-v1", "runner.rollout_steps=4", "trainer.total_steps=512")
    told: list[float] = []
    update = trainer.algorithm.update

    def noted(agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        told.append(progress)
        return update(agent, learner, rollout, progress)

    trainer.algorithm.update = noted
    for steps in (0, 128, 448, 512, 600):  # the last iteration may overshoot
        trainer.loop.next(Counters(steps=steps))
    assert told == [0.0, 0.25, 0.875, 1.0, 1.0]


def test_rows_past_the_checkpoint_are_dropped_on_resume(make: Make, tmp_path: Path) -> None:
    settings = [*small("ppo"), "env=CartPole-v1", "trainer.total_steps=600", "logger.sinks=[tensorboard]"]
    make(*settings).train()
    path = tmp_path / "run" / "metrics.jsonl"
    last = read_rows(path)[-1]["step"]
    with path.open("a") as file:
        file.write(json.dumps({"step": last + 5000, "health/kl": 9.0}) + '\n{"step": 99')  # a torn last line
    longer = make(*settings, "trainer.total_steps=1200")
    longer.load_state_dict(longer.writer.checkpoints.load("last"))
    longer.train()
    steps = [row["step"] for row in read_rows(path)]
    assert steps == sorted(set(steps)) and last in steps and last + 5000 not in steps and steps[-1] >= 1200


def test_the_normaliser_has_seen_every_step_of_the_run_and_no_reset(make: Make) -> None:
    trainer = make(*small("trpo"), "env=Walker2d-v4", "trainer.total_steps=1000")
    trainer.train()
    moments = trainer.agent.normalizer.moments
    assert float(moments.count) == trainer.counters.steps < 1000 + 256
    assert float(moments.mean[0]) == pytest.approx(1.2, abs=0.1)  # how high a walker stands, metres


def test_a_stop_request_ends_the_run_with_a_checkpoint(make: Make, tmp_path: Path) -> None:
    trainer = make(*small("ppo"), "env=CartPole-v1", "trainer.total_steps=100000")
    update = trainer.algorithm.update

    def stop_after(agent: object, learner: object, rollout: object, progress: float) -> dict[str, float]:
        trainer.stop_requested = True
        return update(agent, learner, rollout, progress)

    trainer.algorithm.update = stop_after
    summary = trainer.train()
    assert summary["status"] == "interrupted" and summary["iterations"] == 1
    assert trainer.writer.checkpoints.load("last")["counters"]["steps"] == summary["steps"]


def test_best_is_the_checkpoint_of_the_best_mean_return(make: Make) -> None:
    trainer = make(*small("trpo"), "env=CartPole-v1", "trainer.total_steps=4000", "env.num_envs=8")
    trainer.train()
    best, last = trainer.writer.checkpoints.load("best"), trainer.writer.checkpoints.load("last")
    assert best["counters"]["best_return"] == last["counters"]["best_return"]
    assert best["counters"]["steps"] == last["counters"]["best_steps"]
    recent = best["counters"]["recent"]
    assert sum(recent) / len(recent) == pytest.approx(best["counters"]["best_return"])


def test_episodes_that_no_row_has_counted_are_in_a_checkpoint(make: Make) -> None:
    one, two = (
        make(*small("a2c"), "env=CartPole-v1", "env.backend=gymnasium", name=name) for name in ("a", "b")
    )
    one._process(IterationReport(100, [Episode(5.0, 2)] * 3, None), time.perf_counter())
    two.load_state_dict(one.state_dict())
    rows = list[dict[str, float]]()
    two.writer.write_row = lambda steps, metrics: rows.append(metrics)  # type: ignore[method-assign]
    two._process(IterationReport(100, [Episode(1.0, 2)], {}), time.perf_counter())
    (row,) = rows
    assert (row["rollout/episodes"], row["rollout/episode_return"], row["time/iteration"]) == (4, 4.0, 2)


def test_the_best_is_kept_as_it_was_until_it_is_written(make: Make) -> None:
    """Its checkpoint comes with the next one, when the run may be worse again."""
    trainer = make(*small("a2c"), "env=CartPole-v1", "env.backend=gymnasium")
    trainer.writer.write_row = lambda steps, metrics: None  # type: ignore[method-assign]
    for earned in (5.0, 1.0):
        trainer._process(
            IterationReport(100, [Episode(earned, 1)] * RECENT_EPISODES, None), time.perf_counter()
        )
        with torch.no_grad():
            for part in trainer.agent.policy.parameters():
                part += 1.0
    trainer._write_checkpoint()
    best, last = (trainer.writer.checkpoints.load(name) for name in ("best", "last"))
    assert (best["counters"]["steps"], best["counters"]["best_return"]) == (100, 5.0)
    assert (last["counters"]["steps"], last["counters"]["best_return"]) == (200, 5.0)
    for name, weights in best["agent"]["policy"].items():
        torch.testing.assert_close(weights + 2.0, last["agent"]["policy"][name] + 0.0, msg=name)


def test_evaluation_plays_whole_deterministic_episodes_and_disturbs_nothing(
    make: Make, tmp_path: Path
) -> None:
    settings = [*small("ppo"), "env=CartPole-v1", "trainer.total_steps=1000"]
    without, with_evaluation = make(*settings, name="a"), make(*settings, "trainer.eval_every=300", name="b")
    without.train()
    with_evaluation.train()
    assert torch.equal(parameters(without), parameters(with_evaluation))
    rows = [row for row in read_rows(tmp_path / "b" / "metrics.jsonl") if "eval/episode_return" in row]
    assert len(rows) == with_evaluation.counters.steps // 300
    assert all(row["eval/episode_return"] == row["eval/episode_length"] for row in rows)
    first, again, other = (evaluate(with_evaluation, iteration) for iteration in (1, 1, 2))
    assert len(first) == 10 and first == again != other


def test_health_can_be_measured_less_often_without_changing_the_run(make: Make, tmp_path: Path) -> None:
    often, seldom = (
        make(*small("ppo"), "env=CartPole-v1", "trainer.total_steps=1600", f"logger.every={n}", name=str(n))
        for n in (1, 3)
    )
    summaries = [often.train(), seldom.train()]
    assert torch.equal(parameters(often), parameters(seldom))
    rows = [read_rows(tmp_path / str(n) / "metrics.jsonl") for n in (1, 3)]
    assert len(rows[0]) % 3 != 0 and len(rows[1]) == len(rows[0]) // 3 + 1
    # No episode is lost: the rarer rows count those of the iterations between them, and the last update has one.
    assert sum(r["rollout/episodes"] for r in rows[1]) == sum(r["rollout/episodes"] for r in rows[0])
    assert {k: v for k, v in rows[1][-1].items() if k.startswith("health/")} == {
        k: v for k, v in rows[0][-1].items() if k.startswith("health/")
    }
    assert summaries[0]["final_return"] == summaries[1]["final_return"]


@pytest.mark.parametrize(
    "runner",
    [
        "sync",
        "episodes",
        *(pytest.param(each, marks=pytest.mark.system) for each in ("actor_learner", "a3c")),
    ],
)
def test_a_run_of_fewer_updates_than_logger_every_has_a_row_of_its_last_update(
    make: Make, tmp_path: Path, runner: str
) -> None:
    few = ["runner.workers=1"]
    rule = {"a3c": ["algo=a3c", *few], "actor_learner": ["algo=impala", *few]}
    own = rule.get(runner, ["algo=a2c", f"runner={runner}"])
    trainer = make(*own, "env=CartPole-v1", "trainer.total_steps=600", "logger.every=1000")
    summary = trainer.train()
    last = read_rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["step"] == summary["steps"] and last["time/iteration"] == summary["iterations"]
    assert "health/kl" in last and "rollout/episode_return" in last


def test_a_run_that_is_stopped_between_two_looks_logs_its_episodes_and_logs_them_once(
    make: Make, tmp_path: Path
) -> None:
    settings = [*small("a2c"), "env=CartPole-v1", "trainer.total_steps=2000", "logger.every=1000"]
    cut = make(*settings)
    stop_when(cut, lambda state: state.step >= 500)
    cut.train()
    path = tmp_path / "run" / "metrics.jsonl"
    (row,) = read_rows(path)
    assert row["step"] == cut.counters.steps and "health/kl" not in row
    ended = row["rollout/episodes"]
    resumed = make(*settings)
    resumed.load_state_dict(resumed.writer.checkpoints.load("last"))
    resumed.train()
    (row,) = read_rows(path)
    assert row["step"] == resumed.counters.steps and row["rollout/episodes"] > ended


def test_a_row_s_speed_is_since_the_row_before(make: Make) -> None:
    """Seconds of updates between two rows count, whether they were looked at or not; skipped updates add up."""
    trainer = make(*small("a2c"), "env=CartPole-v1", "env.backend=gymnasium")
    rows = list[tuple[int, dict[str, float]]]()
    trainer.writer.write_row = lambda steps, metrics: rows.append((steps, metrics))  # type: ignore[method-assign]
    looked = IterationReport(100, [], {})
    for report, seconds in [(looked, 10.0), (replace(looked, metrics=None), 30.0), (looked, 10.0)]:
        trainer._process(report, time.perf_counter() - seconds)
    (_, first), (_, second) = rows
    assert [steps for steps, _ in rows] == [100, 300]
    assert first["time/steps_per_second"] == pytest.approx(10.0, rel=0.05)
    assert second["time/steps_per_second"] == pytest.approx(5.0, rel=0.05)
    assert second["time/seconds"] == pytest.approx(50.0, rel=0.05) and second["time/iteration"] == 3
    for _ in range(2):
        trainer._process(replace(looked, metrics=None, skipped=True), time.perf_counter())
    assert [row["algo/updates_skipped"] for _, row in rows[2:]] == [1, 2]


def test_the_status_of_a_run_is_the_reason_for_its_end(make: Make) -> None:
    status = {}
    for name, stop, requested in (
        ("finished", None, False),
        ("stopped", STOP, False),
        ("pruned", Stop("pruned"), False),
        ("interrupted", None, True),
    ):
        trainer = make(*small("a2c"), "env=CartPole-v1", "env.backend=gymnasium", name=name)

        def callback(
            state: TrainingState, t: Trainer = trainer, s: Stop | None = stop, r: bool = requested
        ) -> Stop | None:
            t.stop_requested = r
            return s

        trainer.callbacks.append(as_callback(callback))
        status[name] = trainer.train()["status"]
    assert all(found == name for name, found in status.items())


def test_every_is_due_once_for_each_multiple_passed() -> None:
    assert [PeriodicTrigger(10).due(a, b) for a, b in ((0, 9), (9, 10), (10, 19), (9, 31))] == [
        False,
        True,
        False,
        True,
    ]
    assert not PeriodicTrigger(None).due(0, 10**9)
