"""What is written into a run's folder, and in which order: a run that is killed at any moment can go on."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pgx.core.agent import Metrics
from pgx.runs.checkpoints import Checkpoints, packed
from pgx.runs.loggers import Clip
from pgx.runs.writer import PendingCheckpoint, Records

Events = list[tuple[str, Any]]


class Noted:
    """A sink that notes what it is asked for."""

    def __init__(self, events: Events) -> None:
        self.events = events

    def write(self, steps: int, metrics: Metrics) -> None:
        self.events.append(("row", steps))

    def film(self, steps: int, clip: Clip) -> None:
        """No test films."""

    def settle(self) -> None:
        self.events.append(("settle", None))

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


Begun = Callable[..., tuple[Records, NotedCheckpoints, Events]]


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    """Records of a new run with two sinks, and what happens to these and to its checkpoints."""

    def begin() -> tuple[Records, NotedCheckpoints, Events]:
        events = Events()
        checkpoints = NotedCheckpoints(tmp_path, events)
        sinks = [Noted(events), Noted(events)]
        records = Records(tmp_path, "a: 1\n", checkpoints, lambda *_: sinks, 0.0, lambda line: None)
        records.begin(None, 0)
        return records, checkpoints, events

    return begin


def test_a_checkpoint_is_last_once_its_rows_are_on_the_disk_and_the_best_is_there(begun: Begun) -> None:
    records, _, events = begun()
    records.row(7, {})
    state, best = packed({"steps": 7}), packed({"steps": 5})
    records.checkpoint(PendingCheckpoint(7, state, best))
    assert events[:2] == [("row", 7)] * 2
    assert events[2:] == [
        ("settle", None),
        ("settle", None),
        ("best", best),
        ("step_000000000007", state),
        ("last", state),
    ]


def test_a_checkpoint_without_a_new_best_leaves_the_old_one(begun: Begun) -> None:
    records, _, events = begun()
    records.checkpoint(PendingCheckpoint(7, packed({}), None))
    assert [name for name, _ in events] == ["settle", "settle", "step_000000000007", "last"]


def test_a_checkpoint_that_waits_has_a_last_chance_before_the_next(begun: Begun) -> None:
    records, checkpoints, events = begun()
    checkpoints.full = True
    records.checkpoint(PendingCheckpoint(7, packed({}), packed({})))
    checkpoints.full = False
    records.checkpoint(PendingCheckpoint(9, packed({}), None))
    saved = [name for name, _ in events if name != "settle"]
    assert saved == ["best", "step_000000000007", "last", "step_000000000009", "last"]


def test_a_checkpoint_is_tried_again_at_the_end_before_the_summary(begun: Begun, tmp_path: Path) -> None:
    records, checkpoints, events = begun()
    checkpoints.full = True
    records.checkpoint(PendingCheckpoint(7, packed({}), None))
    checkpoints.full = False
    records.end({"status": "finished"}, patient=True)
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
