"""What is logged is there: to the last row when the process is killed, to the last byte when the disk was full."""

import json
import math
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.util.tensor_util import make_ndarray

from pgx.runs.loggers import tensorboard
from pgx.runs.loggers.jsonl import AppendOnlyFile, JsonLines, read_rows
from pgx.runs.loggers.retrying import RetryingLogger
from pgx.runs.loggers.tensorboard import TensorBoard

TAG = "health/kl"


@contextmanager
def room(size: int) -> Iterator[None]:
    """Within: the system lets no file grow beyond so many bytes, as a full disk would; it writes what still fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def scalars(run: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(TAG)]


def scalars_of_the_server(run: Path) -> list[tuple[int, float]]:
    """Read as `tensorboard --load_fast=false` does."""
    events = plugin_event_accumulator.EventAccumulator(str(run), size_guidance={"tensors": 0})
    events.Reload()
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(TAG)]


def test_a_record_that_does_not_fit_leaves_nothing_and_the_next_stands_where_it_began(tmp_path: Path) -> None:
    file = AppendOnlyFile(tmp_path / "file")
    file.append(b"first\n")
    with room(10):
        with pytest.raises(OSError, match="File too large"):
            file.append(b"second\n")  # four bytes of it fit
        assert (tmp_path / "file").stat().st_size == 10
        file.append(b"2\n")
    file.append(b"third\n")
    file.flush()
    assert (tmp_path / "file").read_bytes() == b"first\n2\nthird\n"


def test_settling_takes_away_what_was_torn(tmp_path: Path) -> None:
    file = AppendOnlyFile(tmp_path / "file")
    with room(3), pytest.raises(OSError):
        file.append(b"torn\n")
    file.flush()
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_that_is_opened_again_goes_on_at_its_end(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        file = AppendOnlyFile(tmp_path / "file")
        file.append(text)
        file.close()
    assert (tmp_path / "file").read_bytes() == b"one\ntwo\n"


def test_rows_wait_for_room_and_are_then_all_there_once_and_in_order(tmp_path: Path) -> None:
    said: list[str] = []
    patient = RetryingLogger(JsonLines(tmp_path / "metrics.jsonl", None, 0), "metrics.jsonl", said.append)
    patient.write(1, {TAG: 1.0})
    with room(40):
        for step in (2, 3, 4):
            patient.write(step, {TAG: float(step)})
        assert len(said) == 1 and "cannot be written (File too large)" in said[0]
        with pytest.raises(OSError):
            patient.flush()
    patient.write(5, {TAG: 5.0})
    assert len(said) == 2 and "written again" in said[1] and "lost" not in said[1]
    assert [(row["step"], row[TAG]) for row in read_rows(tmp_path / "metrics.jsonl")] == [
        (n, n) for n in range(1, 6)
    ]


def test_events_wait_for_room_and_are_then_all_there_once(tmp_path: Path) -> None:
    patient = RetryingLogger(TensorBoard(tmp_path, {}, {}, None), "events", lambda said: None)
    patient.write(1, {TAG: 1.0})
    (file,) = tmp_path.iterdir()
    with room(file.stat().st_size + 20):
        for step in (2, 3):
            patient.write(step, {TAG: float(step)})
    patient.write(4, {TAG: 4.0})
    assert scalars(tmp_path) == [(n, n) for n in range(1, 5)]


def test_rows_of_a_killed_process_are_on_the_disk(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        loggers = [TensorBoard(tmp_path, {}, {}, None), JsonLines(tmp_path / "metrics.jsonl", None, 0)]
        for step in range(1, 101):
            for logger in loggers:
                logger.write(step, {TAG: float(step)})
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert scalars(tmp_path) == [(n, n) for n in range(1, 101)]
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == list(range(1, 101))


@pytest.mark.parametrize("read_by", [scalars, scalars_of_the_server])
@pytest.mark.parametrize("first_start", [True, False], ids=["first start written", "first start missing"])
def test_events_past_the_checkpoint_are_hidden_and_written_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first_start: bool,
    read_by: Callable[[Path], list[tuple[int, float]]],
) -> None:
    for keep_until, steps in ((None, (1, 2, 3, 4)), (2, (3, 4, 5)), (3, (4,))):
        with monkeypatch.context() as patch:
            if keep_until is None and not first_start:  # as earlier versions wrote the first life of a run
                patch.setattr(tensorboard, "_session", lambda step: Event(step=step))
            life = TensorBoard(tmp_path, {}, {}, keep_until)
        for step in steps:
            life.write(step, {TAG: 10.0 * len(steps) + step})
        life.close()
    assert read_by(tmp_path) == [(1, 41.0), (2, 42.0), (3, 33.0), (4, 14.0)]


def test_numbers_that_are_not_finite_are_strict_json_and_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": Infinity, "b": -Infinity}\n')  # as earlier versions wrote
    file = JsonLines(path, keep_until=1, keep_rows=1)
    file.write(2, {"a": math.inf, "b": -math.inf})
    file.close()

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert [(row["a"], row["b"]) for row in read_rows(path)] == [(math.inf, -math.inf)] * 2


def test_lines_that_a_crash_tore_or_a_disk_lost_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = json.dumps({"step": 1, TAG: 1.0})
    path.write_bytes(f"{whole}\n".encode() + b"\0" * 30 + b'\n{"step": 2}\n[3]\n{"step": 4, "hea')
    assert [row["step"] for row in read_rows(path)] == [1, 2]
    again = JsonLines(path, keep_until=1, keep_rows=1)
    again.write(2, {TAG: 2.0})
    assert [(row["step"], row[TAG]) for row in read_rows(path)] == [(1, 1.0), (2, 2.0)]


def test_a_resumed_run_keeps_the_rows_that_its_checkpoint_counts_and_no_other(tmp_path: Path) -> None:
    """Up to its step, and of that step no more than it has counted."""
    path = tmp_path / "metrics.jsonl"
    steps = [1, 2, 2, 3]

    def kept(keep_until: int | None, keep_rows: int) -> list[int]:
        path.write_text("".join(json.dumps({"step": step, TAG: 0.0}) + "\n" for step in steps))
        JsonLines(path, keep_until, keep_rows).close()
        return [row["step"] for row in read_rows(path)]

    assert kept(2, 4) == [1, 2, 2]
    assert kept(2, 2) == [1, 2]
    assert kept(9, 9) == steps
    assert kept(None, 9) == []


def test_a_line_without_its_end_is_no_row(tmp_path: Path) -> None:
    """It may lack digits of its last number."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert [row["step"] for row in read_rows(path)] == [1]
