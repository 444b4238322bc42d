"""What is written into a run's folder, and in which order: a run that is killed at any moment can go on."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pgx.core.agent import Metrics
from pgx.runs.checkpoints import Checkpoints, serialize
from pgx.runs.loggers import VideoClip
from pgx.runs.writer import PendingCheckpoint, RunWriter

Events = list[tuple[str, Any]]


class Noted:
    """A sink that notes what it is asked for."""

    def __init__(self, events: Events) -> None:
        self.events = events

    def write(self, steps: int, metrics: Metrics) -> None:
        self.events.append(("row", steps))

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """No test films."""

    def flush(self) -> None:
        self.events.append(("flush", None))

    def finish(self, summary: dict[str, Any]) -> None:
        self.events.append(("finish", summary["status"]))

    def close(self) -> None:
        self.events.append(("close", None))


class NotedCheckpoints(Checkpoints):
    """Checkpoints that note what is saved, and that a full disk refuses as long as `full` is set."""

    def __init__(self, run_dir: Path, events: Events) -> None:
        super().__init__(run_dir)
        self.events = events
        self.full = False

    def save(self, state: bytes, names: Iterable[str]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.events += [(name, state) for name in names]
        super().save(state, names)


Begun = Callable[..., tuple[RunWriter, NotedCheckpoints, Events]]


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    """Writer of a new run with two loggers, and the recorded calls of both and of its checkpoints."""

    def begin() -> tuple[RunWriter, NotedCheckpoints, Events]:
        events = Events()
        checkpoints = NotedCheckpoints(tmp_path, events)
        loggers = [Noted(events), Noted(events)]
        writer = RunWriter(tmp_path, "a: 1\n", checkpoints, lambda *_: loggers, 0.0, lambda line: None)
        writer.open(None, 0)
        return writer, checkpoints, events

    return begin


def test_a_checkpoint_is_last_once_its_rows_are_on_the_disk_and_the_best_is_there(begun: Begun) -> None:
    writer, _, events = begun()
    writer.write_row(7, {})
    state, best = serialize({"steps": 7}), serialize({"steps": 5})
    writer.write_checkpoint(PendingCheckpoint(7, state, best))
    assert events[:2] == [("row", 7)] * 2
    assert events[2:] == [
        ("flush", None),
        ("flush", None),
        ("best", best),
        ("step_000000000007", state),
        ("last", state),
    ]


def test_a_checkpoint_without_a_new_best_leaves_the_old_one(begun: Begun) -> None:
    writer, _, events = begun()
    writer.write_checkpoint(PendingCheckpoint(7, serialize({}), None))
    assert [name for name, _ in events] == ["flush", "flush", "step_000000000007", "last"]


def test_a_checkpoint_that_waits_has_a_last_chance_before_the_next(begun: Begun) -> None:
    writer, checkpoints, events = begun()
    checkpoints.full = True
    writer.write_checkpoint(PendingCheckpoint(7, serialize({}), serialize({})))
    checkpoints.full = False
    writer.write_checkpoint(PendingCheckpoint(9, serialize({}), None))
    saved = [name for name, _ in events if name != "flush"]
    assert saved == ["best", "step_000000000007", "last", "step_000000000009", "last"]


def test_a_checkpoint_is_tried_again_at_the_end_before_the_summary(begun: Begun, tmp_path: Path) -> None:
    writer, checkpoints, events = begun()
    checkpoints.full = True
    writer.write_checkpoint(PendingCheckpoint(7, serialize({}), None))
    checkpoints.full = False
    writer.finish({"status": "finished"}, wait_for_disk=True)
    assert [name for name, _ in events][-6:] == [
        "step_000000000007",
        "last",
        "finish",
        "finish",
        "close",
        "close",
    ]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"status": "finished"}


def test_a_run_that_goes_on_has_no_summary_until_it_ends_again(begun: Begun, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"status": "interrupted"}')
    begun()
    assert not (tmp_path / "summary.json").exists()
