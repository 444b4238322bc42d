"""`pgx runs` lists the state of runs from their folders."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgx.cli.main import main
from pgx.cli.runs import RunRow, draw_rows, find_rows, shorten
from pgx.runs.lock import lock_run
from pgx.sweeps.progress import write_failure
from tests.conftest import Make

CARTPOLE = ["env=CartPole-v1", "algo=ppo"]


@pytest.fixture
def folder(make: Make, tmp_path: Path) -> Path:
    """Return a folder with a run in each state."""
    make(*CARTPOLE, name="finished").train()
    for name in ("running", "failed", "interrupted", "unreadable"):
        shutil.copytree(tmp_path / "finished", tmp_path / name)
    for name in ("running", "interrupted"):
        (tmp_path / name / "summary.json").unlink()
    write_failure(tmp_path / "failed", "the simulator burst")
    (tmp_path / "unreadable" / "config.yaml").write_text("[")
    return tmp_path


def lines(folder: Path) -> dict[str, RunRow]:
    return {line.run: line for line in find_rows(folder, {})}


def test_the_state_of_each_run_is_listed(folder: Path) -> None:
    with lock_run(folder / "running"):
        found = lines(folder)
    assert set(found) == {"finished", "running", "failed", "interrupted", "unreadable"}
    assert {name for name, line in found.items() if line.state != name} == set()
    assert found["failed"].error == "the simulator burst"
    summary = json.loads((folder / "finished" / "summary.json").read_text())
    done = found["finished"]
    assert (done.steps, done.total_steps, done.recent_return) == (
        summary["steps"],
        512,
        summary["final_return"],
    )
    assert done.best_return is not None and done.steps_per_second is not None
    assert (done.env, done.algo, done.seed) == ("CartPole-v1", "ppo", 0)
    # A run under way is known from its rows alone, and they say the same.
    assert found["running"].steps == done.steps and found["running"].recent_return == done.recent_return


def test_the_newest_runs_come_first(folder: Path) -> None:
    for age, name in enumerate(["interrupted", "finished", "failed"]):
        for file in ("metrics.jsonl", "config.yaml", "summary.json", "run.lock"):
            if (path := folder / name / file).exists():
                os.utime(path, (time.time() - 1000 * (age + 1),) * 2)
    found = [line.run for line in find_rows(folder, {})]
    assert found[-3:] == ["interrupted", "finished", "failed"]
    assert lines(folder)["failed"].age == pytest.approx(3000, abs=100)


def test_only_changed_runs_are_read_again(folder: Path) -> None:
    seen: dict = {}  # type: ignore[type-arg]
    first = {line.run: line for line in find_rows(folder, seen)}
    with lock_run(folder / "interrupted"):
        write_failure(folder / "finished", "after all")
        second = {line.run: line for line in find_rows(folder, seen)}
    assert (second["finished"].state, second["interrupted"].state) == ("failed", "running")
    third = {line.run: line for line in find_rows(folder, seen)}
    assert third["interrupted"].state == "interrupted"  # the lock is let go, and no file says so
    assert second["failed"].error is first["failed"].error  # the very same, not an equal one


def test_output_as_table_and_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["runs", str(folder)])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    for word in (
        "finished",
        "failed: failed: the simulator burst",
        "512",
        "100%",
        "steps/s",
        "CartPole-v1",
        "seed",
    ):
        assert word in out
    assert "\x1b" not in out and "…" not in out
    with pytest.raises(SystemExit):
        main(["runs", str(folder), "--json"])
    assert {line["state"] for line in json.loads(capsys.readouterr().out)} >= {
        "finished",
        "failed",
        "unreadable",
    }


LONG = "outputs/LunarLanderContinuous-v3/off_policy_reinforce/2026-11-28_14-33-25_8_seed12"


def some(run: str = LONG, error: str | None = None) -> RunRow:
    state = "failed" if error else "interrupted"
    return RunRow(run, "LunarLanderContinuous-v3", "off_policy_reinforce", 12, state, 10_000_000, 10_000_000, -12345.6,
                -12345.6, 12_345.6, 3e6, error)  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 120, 160, 240])
def test_the_table_fits_and_grows_with_the_terminal(width: int) -> None:
    error = "NotFiniteError: " + "the update made parameters of the policy NaN " * 5
    lines = [some(), some(run="a"), some(error=error)]
    head, rule, *rows = [text.plain for text in draw_rows(lines, width, ascii_only=False)]
    assert max(map(len, [head, rule, *rows[:3]])) <= width
    needed = ["run", "env", "algo", "seed", "status", "steps", "return"]
    assert [title for title in head.split() if title in needed] == needed
    assert len(head.split()) == {80: 7, 100: 7, 120: 8, 160: 12, 240: 12}[width]
    assert rows[0].split()[0].endswith("_seed12") and rows[1].split()[0] == "a"
    if width < 240:
        assert "…" in rows[0]
    else:
        assert rows[0].startswith(LONG)
    assert (
        " ".join(" ".join(rows[3:]).split()) == f"{LONG}: failed: {error.strip()}"
    )  # whole, below the table
    assert "NotFiniteError" not in " ".join(rows[:3])


def test_nothing_is_shortened_in_a_pipe() -> None:
    head, _, row, error = [text.plain for text in draw_rows([some(error="x" * 500)], None, ascii_only=True)]
    assert row.startswith(LONG) and error == f"{LONG}: failed: {'x' * 500}" and len(head.split()) == 12
    assert all(text.plain.isascii() for text in draw_rows([some()], 80, ascii_only=True))


@given(st.text(min_size=1), st.integers(1, 40))
def test_a_shortened_name_has_its_size_and_its_ends(name: str, size: int) -> None:
    short = shorten(name, size, "…")
    assert len(short) <= max(size, 1) and (short == name or len(short) == size)
    head, _, tail = short.partition("…") if short != name else (name, "", "")
    assert name.startswith(head) and name.endswith(tail)


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SystemExit) as ended:
            main(["runs", str(place)])
        assert ended.value.code == 2
        assert str(place) in capsys.readouterr().err


@pytest.mark.system
def test_watch_continues_until_ctrl_c(folder: Path) -> None:
    command = [sys.executable, "-m", "pgx", "runs", str(folder), "--watch", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None and watching.stderr is not None
        first = json.loads(watching.stdout.readline())
        write_failure(folder / "interrupted", "seen later")
        second = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=60) == 130
        assert "Traceback" not in watching.stderr.read()
    assert {line["run"]: line["state"] for line in first}["interrupted"] == "interrupted"
    assert {line["run"]: line["state"] for line in second}["interrupted"] == "failed"
