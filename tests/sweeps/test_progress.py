"""The state of a run follows from its folder, from before its start until after its process was killed."""

import json
from pathlib import Path

import pytest

from pgx.core.stopping import StopAtCheckpoint
from pgx.runs.lock import lock_run
from pgx.runs.writer import refuse_existing_run
from pgx.sweeps.progress import Progress, clear_run, read_progress, resumable, seconds_left, write_failure
from pgx.training.callbacks import Stop, TrainingState
from tests.conftest import Make, small, stop_when

RUN = [
    *small("a2c"),
    "env=CartPole-v1",
    "trainer.total_steps=600",
    "trainer.checkpoint_every=256",
    "logger.every=1",
]


def test_a_run_without_a_folder_is_waiting(tmp_path: Path) -> None:
    assert read_progress(tmp_path / "nowhere").state == "waiting"
    assert not resumable(tmp_path / "nowhere")


def test_a_run_is_running_while_it_runs_and_finished_after(make: Make, tmp_path: Path) -> None:
    trainer, seen = make(*RUN), []
    stop_when(
        trainer, lambda state: seen.append((read_progress(tmp_path / "run"), state.previous_step)) or False
    )
    trainer.train()
    assert [run.state for run, _ in seen] == ["running"] * len(seen) and len(seen) >= 3
    assert [run.steps for run, _ in seen] == [steps for _, steps in seen]
    ended = read_progress(tmp_path / "run")
    assert (ended.state, ended.env, ended.total_steps) == ("finished", "CartPole-v1", 600)
    assert ended.steps >= 600 and ended.seconds > 0 and ended.final_return is not None


def test_a_killed_run_is_interrupted_for_any_end_of_its_previous_process(make: Make, tmp_path: Path) -> None:
    first = make(*RUN)
    stop_when(first, lambda state: state.step > 256, Stop("pruned"))
    assert first.train()["status"] == "pruned"
    assert read_progress(tmp_path / "run").state == "pruned"
    again = make(*RUN)
    again.load_state_dict(again.writer.checkpoints.load("last"))
    seen = []
    stop_when(again, lambda state: seen.append((tmp_path / "run" / "summary.json").exists()) or False)
    again.train()
    assert not any(seen)  # a process killed now leaves no summary, and not that of the previous process
    (tmp_path / "run" / "summary.json").unlink()
    assert read_progress(tmp_path / "run").state == "interrupted"


def test_a_pruned_run_has_a_checkpoint_of_its_last_step(make: Make, tmp_path: Path) -> None:
    trainer = make(*RUN)
    stop_when(trainer, lambda state: state.step > 300, Stop("pruned"))
    summary = trainer.train()
    assert summary["status"] == "pruned" and 300 < summary["steps"] < 600
    assert trainer.writer.checkpoints.load("last")["counters"]["steps"] == summary["steps"]


def test_a_second_trainer_in_the_folder_is_refused_and_harms_nothing(make: Make, tmp_path: Path) -> None:
    make(*RUN).train()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*") if path.name != "run.lock"}
    again = make(*RUN, "trainer.total_steps=5000")
    again.load_state_dict(again.writer.checkpoints.load("last"))
    with lock_run(tmp_path / "run"), pytest.raises(Exception, match="is using it"):
        again.train()
    assert {path: path.read_bytes() for path in before} == before


def test_a_failure_before_the_start_is_recorded_and_can_be_retried(tmp_path: Path) -> None:
    write_failure(tmp_path / "run", "no such robot")
    run = read_progress(tmp_path / "run")
    assert (run.state, run.error, run.steps) == ("failed", "no such robot", 0)
    refuse_existing_run(tmp_path / "run")


def test_a_run_that_ended_before_its_first_checkpoint_can_start_again(make: Make, tmp_path: Path) -> None:
    trainer = make(*RUN)

    def die(state: TrainingState) -> bool:
        raise StopAtCheckpoint

    stop_when(trainer, die)
    with pytest.raises(StopAtCheckpoint):
        trainer.train()
    assert not resumable(tmp_path / "run")
    clear_run(tmp_path / "run")
    assert read_progress(tmp_path / "run").state == "waiting"
    make(*RUN).train()
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps))


def run(state: str, steps: int, seconds: float, total: int | None = 1000) -> Progress:
    return Progress(state, "E", steps, total, seconds, None, None)  # type: ignore[arg-type]


def test_the_remaining_time_follows_from_the_remaining_steps() -> None:
    assert seconds_left([run("waiting", 0, 0.0, None)], 1) is None
    # 10 ms a step, 500 steps to go in one run and 1000 in another that has not begun.
    half, none = run("running", 500, 5.0), run("waiting", 0, 0.0, None)
    assert seconds_left([half, none], 1) == pytest.approx(15.0)
    assert seconds_left([half, none], 3) == pytest.approx(5.0)
    assert seconds_left([half, none, run("pruned", 100, 1.0), run("failed", 100, 1.0)], 1) == pytest.approx(
        15.0
    )
    assert seconds_left([run("finished", 1010, 9.0)], 1) == 0.0
