"""Callbacks: what they see, when they are called, and how they end a run."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from pgx.core.errors import RunError, UserCodeError, UserError
from pgx.core.metrics import Metric
from pgx.runs.loggers.jsonl import read_rows
from pgx.runs.writer import read_summary
from pgx.training.callbacks import STOP, TrainingState, as_callback
from tests.conftest import Make, parameters, small

RUN = [*small("a2c"), "env=CartPole-v1", "env.backend=gymnasium", "trainer.total_steps=600"]


class Recorder:
    """Callback that keeps the names of its methods and the states."""

    metrics: ClassVar = (Metric("twice", "steps", "twice the environment steps", section="mine"),)

    def __init__(self) -> None:
        self.calls: list[tuple[str, TrainingState]] = []

    def on_start(self, state: TrainingState) -> None:
        self.calls.append(("start", state))

    def on_iteration(self, state: TrainingState) -> None:
        self.calls.append(("iteration", state))
        state.log("twice", 2.0 * state.step)

    def on_end(self, state: TrainingState) -> None:
        self.calls.append(("end", state))


def test_a_callback_sees_each_iteration_between_start_and_end_and_changes_nothing(
    make: Make, tmp_path: Path
) -> None:
    plain, watched, recorder = make(*RUN, name="plain"), make(*RUN, name="watched"), Recorder()
    watched.callbacks.append(as_callback(recorder))
    plain.train()
    watched.train()
    names = [name for name, _ in recorder.calls]
    assert names == ["start", *["iteration"] * (len(names) - 2), "end"] and len(names) > 4
    states = [state for _, state in recorder.calls]
    assert [state.previous_step for state in states[1:-1]] == [state.step for state in states[:-2]]
    assert states[-1].status == "finished" and states[-1].step == watched.counters.steps
    assert parameters(plain).equal(parameters(watched))
    assert all(
        state.rollout is not None and state.rollout.valid.sum() == state.step - state.previous_step
        for state in states[1:-1]
        if state.metrics
    )
    rows = read_rows(tmp_path / "watched" / "metrics.jsonl")
    assert [row["mine/twice"] for row in rows] == [2 * row["step"] for row in rows]
    plain_rows = read_rows(tmp_path / "plain" / "metrics.jsonl")
    assert {row["step"]: row["health/kl"] for row in plain_rows} == {
        state.step: state.metrics["health/kl"] for state in states if state.metrics
    }


def test_stop_ends_the_run_after_the_iteration_with_a_checkpoint_that_resumes(
    make: Make, tmp_path: Path
) -> None:
    trainer = make(*RUN)
    trainer.callbacks.append(as_callback(lambda state: STOP if state.step >= 300 else None))
    summary = trainer.train()
    assert summary["status"] == read_summary(tmp_path / "run")["status"] == "stopped"
    assert 300 <= summary["steps"] < 600 and summary["checkpoint_steps"] == summary["steps"]
    again = make(*RUN)
    again.load_state_dict(again.writer.checkpoints.load("last"))
    assert again.train()["status"] == "finished"


class Stopper:
    """Callback that stops a run before its first iteration."""

    def on_start(self, state: TrainingState) -> Any:
        return STOP


def test_a_run_may_be_stopped_before_its_first_iteration(make: Make) -> None:
    trainer = make(*RUN)
    trainer.callbacks.append(as_callback(Stopper()))
    summary = trainer.train()
    assert (summary["status"], summary["steps"]) == ("stopped", 0)


def test_a_callback_that_fails_ends_the_run_as_failed_with_a_checkpoint_of_the_iteration(
    make: Make, tmp_path: Path
) -> None:
    def fail(state: TrainingState) -> None:
        if state.iteration == 2:
            raise ZeroDivisionError("mean of no episode")

    trainer, before, after = make(*RUN), Recorder(), Recorder()
    ends: list[TrainingState] = []
    failing = type("Failing", (), {"on_iteration": staticmethod(fail), "on_end": staticmethod(ends.append)})()
    trainer.callbacks += [as_callback(each) for each in (before, failing, after)]
    with pytest.raises(
        UserCodeError, match=r"callback Failing: on_iteration raised ZeroDivisionError"
    ) as caught:
        trainer.train()
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError) and str(cause) == "mean of no episode"
    assert not ends and before.calls[-1][0] == after.calls[-1][0] == "end"
    assert "in fail (test_callbacks.py:" in str(caught.value)
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "failed" and summary["error"] == f"UserCodeError: {caught.value}"
    assert summary["iterations"] == 2
    assert trainer.writer.checkpoints.load("last")["counters"]["iterations"] == 2
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == summary["steps"]


def test_on_end_is_called_once_and_its_failure_is_that_of_the_run(make: Make, tmp_path: Path) -> None:
    def fail(state: TrainingState) -> None:
        raise ZeroDivisionError("at the end")

    trainer, before, after = make(*RUN), Recorder(), Recorder()
    failing = type("Failing", (), {"on_end": staticmethod(fail)})()
    trainer.callbacks += [as_callback(each) for each in (before, failing, after)]
    with pytest.raises(UserCodeError, match="on_end raised ZeroDivisionError: at the end"):
        trainer.train()
    assert read_summary(tmp_path / "run")["status"] == "failed"
    ends = [[state.status for name, state in each.calls if name == "end"] for each in (before, after)]
    assert ends == [["finished"], ["failed"]]


def test_on_end_sees_that_the_run_failed(make: Make) -> None:
    trainer, recorder = make(*RUN), Recorder()
    trainer.callbacks.append(as_callback(recorder))

    def broken(counters: object) -> Any:
        raise RunError("no more environments")

    trainer.loop.next = broken  # type: ignore[method-assign]
    with pytest.raises(RunError, match="no more environments"):
        trainer.train()
    assert [name for name, _ in recorder.calls] == ["start", "end"]
    assert recorder.calls[-1][1].status == "failed"


def test_an_undeclared_metric_of_a_callback_gets_the_declaration(make: Make) -> None:
    trainer = make(*RUN)
    trainer.callbacks.append(as_callback(lambda state: state.log("spread", 1.0)))
    with pytest.raises(RunError, match=r"'spread'.* metrics = \(Metric\("):
        trainer.train()


@pytest.mark.parametrize(
    ("given", "problem"), [(Recorder, r"Recorder is a class; pass an instance"), (3, "3 is no callback")]
)
def test_other_objects_are_not_callbacks(given: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        as_callback(given)
