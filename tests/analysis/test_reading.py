"""Reading of runs of pgx and of other libraries, complete or not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pgx.analysis.find import RunFolder, parse_run_folder, read_runs
from pgx.analysis.foreign_runs import read_events, read_foreign
from pgx.analysis.reading import RecordedRun, RunIdentity, UnreadableError, identify, read_pgx_run
from pgx.core.errors import UserError
from pgx.runs.lock import lock_run
from pgx.sweeps.progress import write_failure
from tests.analysis.writers import LOSS, cleanrl, stable_baselines3, tianshou
from tests.conftest import Make

CARTPOLE = ["env=CartPole-v1", "algo=ppo"]
RISING = np.arange(1.0, 31.0)


def only(place: Path) -> RecordedRun:
    runs, problems = read_runs([RunFolder(place)])
    assert problems == []
    (run,) = runs
    return run


def test_a_run_of_pgx(make: Make, tmp_path: Path) -> None:
    summary = make(*CARTPOLE, "seed=7").train()
    run = only(tmp_path)
    assert (run.env, run.algo, run.seed, run.source, run.state) == (
        "CartPole-v1",
        "ppo",
        "7",
        "pgx",
        "finished",
    )
    assert run.last_step == summary["steps"]
    assert run.config["optimizer.learning_rate"] == 0.0003
    assert run.series["rollout/episode_return_recent"].values[-1] == pytest.approx(summary["final_return"])


def test_damaged_and_incomplete_rows_are_skipped(make: Make, tmp_path: Path) -> None:
    make(*CARTPOLE).train()
    whole = only(tmp_path)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('not json\n[1]\n{"step": "x", "health/kl": 1}\n{"step": 9, "health/kl": NaN, "b": null}\n')
        file.write('{"step": 99999, "health/kl": 0.1')
    again = only(tmp_path)
    assert again.last_step == whole.last_step
    for tag, series in whole.series.items():
        np.testing.assert_array_equal(again.series[tag].values, series.values)


def test_the_state_of_a_run(make: Make, tmp_path: Path) -> None:
    make(*CARTPOLE).train()
    with lock_run(tmp_path / "run"):
        assert only(tmp_path).state == "running"
    write_failure(tmp_path / "run", "the simulator burst")
    failed = only(tmp_path)
    assert (failed.state, failed.error) == ("failed", "the simulator burst")
    (tmp_path / "run" / "summary.json").unlink()
    assert only(tmp_path).state == "interrupted"


@pytest.mark.parametrize("config", ["a: &x 1\nb: *x\n", "just text", "a: [1", "!!python/object:os.system {}"])
def test_a_run_with_an_invalid_config_is_reported(make: Make, tmp_path: Path, config: str) -> None:
    make(*CARTPOLE).train()
    shutil.copytree(tmp_path / "run", tmp_path / "bad")
    (tmp_path / "bad" / "config.yaml").write_text(config)
    runs, problems = read_runs([RunFolder(tmp_path)])
    assert [run.folder.name for run in runs] == ["run"]
    (line,) = problems
    assert "bad" in line and "config.yaml" in line and "\n" not in line


def test_a_run_without_rows_is_unreadable(make: Make, tmp_path: Path) -> None:
    make(*CARTPOLE).train()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(UnreadableError, match="no row"):
        read_pgx_run(tmp_path / "run")


def test_event_files_contain_the_same_values_as_rows(make: Make, tmp_path: Path) -> None:
    make(*CARTPOLE, "logger.sinks=[tensorboard]").train()
    rows, events = read_pgx_run(tmp_path / "run"), read_foreign(tmp_path / "run", {})
    for tag, series in rows.series.items():
        np.testing.assert_array_equal(events.series[tag].steps, series.steps)
        np.testing.assert_allclose(events.series[tag].values, series.values, rtol=1e-6)


def test_runs_of_stable_baselines3(tmp_path: Path) -> None:
    stable_baselines3(tmp_path / "Walker2d-v4" / "PPO_3", RISING)
    run = only(tmp_path)
    assert (run.source, run.env, run.algo, run.seed) == ("Stable-Baselines3", "Walker2d-v4", "sb3:PPO", "3")
    assert run.last_step == 30_000
    np.testing.assert_allclose(run.series["rollout/episode_return_recent"].values, RISING)
    ours = {
        "health/kl": 0.01,
        "health/clip_fraction": 0.1,
        "health/explained_variance": 0.5,
        "health/entropy": 1.5,
    }
    for tag, value in ours.items():
        assert run.series[tag].values == pytest.approx(value)
    assert run.series["algo/critic_loss"].values == pytest.approx(0.5 * LOSS)
    assert run.series["train/std"].values == pytest.approx(0.9)  # not a metric of pgx


def test_runs_of_cleanrl(tmp_path: Path) -> None:
    cleanrl(tmp_path / "runs" / "Hopper-v4__ppo_continuous_action__5__1700000000", RISING, "Hopper-v4", 5)
    run = only(tmp_path)
    name = ("CleanRL", "Hopper-v4", "cleanrl:ppo_continuous_action", "5")
    assert (run.source, run.env, run.algo, run.seed) == name
    assert run.config["learning_rate"] == "0.0003"
    assert run.last_step == 3000  # rather than the evaluation's number
    np.testing.assert_allclose(run.series["rollout/episode_return"].values, RISING)
    recent = [RISING[max(0, i - 20) : i].mean() for i in range(1, 31)]
    np.testing.assert_allclose(run.series["rollout/episode_return_recent"].values, recent)
    assert run.series["health/kl"].values == pytest.approx(0.02)
    seconds = run.series["time/seconds"]
    assert seconds.steps[0] == 100 and (np.diff(seconds.values) >= 0).all() and seconds.values[0] >= 0


@pytest.mark.parametrize("training", ["training", "train"])
def test_runs_of_tianshou(tmp_path: Path, training: str) -> None:
    tianshou(tmp_path / "Ant-v4" / "trpo" / "2" / "240115-101010", RISING, training)
    run = only(tmp_path)
    assert (run.source, run.env, run.algo, run.seed) == ("Tianshou", "Ant-v4", "tianshou:trpo", "2")
    assert run.last_step == 30_000
    np.testing.assert_allclose(run.series["rollout/episode_return_recent"].values, RISING)
    np.testing.assert_allclose(run.series["eval/episode_return"].values, RISING + 1)
    # Written over updates 1, 2, ...: each belongs to the collection before it.
    np.testing.assert_array_equal(run.series["health/kl"].steps, 1000 * RISING)


def test_unknown_tags_are_kept(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "mine" / "Pendulum-v1" / "seed4")) as writer:
        writer.add_scalar("score", 3.0, 10)
    run = only(tmp_path)
    assert (run.env, run.seed, run.last_step, list(run.series)) == ("Pendulum-v1", "4", 10, ["score"])


def test_an_event_file_that_ends_within_a_record_is_read_up_to_that_record(tmp_path: Path) -> None:
    stable_baselines3(tmp_path, RISING)
    (path,) = tmp_path.glob("events*")
    whole = read_events(tmp_path)[0]["rollout/ep_rew_mean"].values
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    half = read_events(tmp_path)[0]["rollout/ep_rew_mean"].values
    assert 5 < len(half) < len(whole)
    np.testing.assert_array_equal(half, whole[: len(half)])
    path.write_bytes(b"not records at all")
    assert read_events(tmp_path)[0] == {}


def test_the_file_of_a_resumed_run_replaces_later_rows_of_the_previous_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    stable_baselines3(first, np.full(10, 1.0))
    stable_baselines3(second, np.full(8, 2.0))
    (events,) = second.glob("events*")
    # As of a run that came to step 10,000 and was resumed at the beginning.
    shutil.copy(events, first / "events.out.tfevents.9999999999.later")
    found = read_events(first)[0]["rollout/ep_rew_mean"]
    np.testing.assert_array_equal(found.values, np.full(8, 2.0))
    np.testing.assert_array_equal(found.steps, np.arange(1000, 9000, 1000))


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("logs/Walker2d-v4/PPO_12", RunIdentity("Walker2d-v4", "x:PPO", "12")),
        ("log/Ant-v3/ppo/0/221201-101010", RunIdentity("Ant-v3", "x:ppo", "0")),
        ("a/Pendulum-v1/mine/s3", RunIdentity("Pendulum-v1", "x:mine", "3")),
        ("runs/ALE/Breakout-v5__ppo_atari__1__1700000000", RunIdentity("Breakout-v5", "x:ppo_atari", "1")),
        ("mine/experiment/seed_8", RunIdentity("unknown", "x:experiment", "8")),
    ],
)
def test_identities_from_folders(folder: str, expected: RunIdentity) -> None:
    assert identify(Path("/data") / folder, "x", {}, {}) == expected


def test_labels_of_the_user_override_those_of_the_run_and_its_folder(tmp_path: Path) -> None:
    cleanrl(tmp_path / "Ant-v4" / "PPO_1", RISING, "Hopper-v4", 5)
    said, _ = read_runs([parse_run_folder(f"{tmp_path}:env=Swimmer-v4,algo=mine")])
    assert (said[0].env, said[0].algo, said[0].seed) == ("Swimmer-v4", "mine", "5")
    assert only(tmp_path).env == "Hopper-v4"


def test_invalid_folders_and_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        parse_run_folder(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="did you mean 'env'"):
        parse_run_folder(f"{tmp_path}:envv=Ant-v4")


def test_a_folder_named_twice_is_read_once(make: Make, tmp_path: Path) -> None:
    make(*CARTPOLE).train()
    runs, _ = read_runs(
        [RunFolder(tmp_path), RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run" / ".." / "run")]
    )
    assert len(runs) == 1


def test_folders_inside_a_run_are_not_searched(make: Make, tmp_path: Path) -> None:
    make(*CARTPOLE).train()
    inner = tmp_path / "run" / "post_mortem" / "it"
    inner.mkdir(parents=True)
    (inner / "metrics.jsonl").write_text(json.dumps({"step": 1, "health/kl": 1.0}) + "\n")
    assert only(tmp_path).folder == tmp_path / "run"
