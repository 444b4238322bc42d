"""`pgx runs` tells the state of runs from their folders."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgx.cli import main
from pgx.commands.runs import Line, look_below
from pgx.run_lock import hold
from pgx.sweeps.progress import write_failure
from tests.conftest import Make

CARTPOLE = ["env=CartPole-v1", "algo=ppo"]


@pytest.fixture
def folder(make: Make, tmp_path: Path) -> Path:
    """A run of each state."""
    make(*CARTPOLE, name="finished").train()
    for name in ("running", "failed", "interrupted", "unreadable"):
        shutil.copytree(tmp_path / "finished", tmp_path / name)
    for name in ("running", "interrupted"):
        (tmp_path / name / "summary.json").unlink()
    write_failure(tmp_path / "failed", "the simulator burst")
    (tmp_path / "unreadable" / "config.yaml").write_text("[")
    return tmp_path


def lines(folder: Path) -> dict[str, Line]:
    return {line.run: line for line in look_below(folder, {})}


def test_each_state_is_told(folder: Path) -> None:
    with hold(folder / "running"):
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
    # A run under way is known from its rows alone, and they say the same.
    assert found["running"].steps == done.steps and found["running"].recent_return == done.recent_return


def test_the_newest_come_first(folder: Path) -> None:
    for age, name in enumerate(["interrupted", "finished", "failed"]):
        for file in ("metrics.jsonl", "config.yaml", "summary.json", "run.lock"):
            if (path := folder / name / file).exists():
                os.utime(path, (time.time() - 1000 * (age + 1),) * 2)
    found = [line.run for line in look_below(folder, {})]
    assert found[-3:] == ["interrupted", "finished", "failed"]
    assert lines(folder)["failed"].age == pytest.approx(3000, abs=100)


def test_a_look_reads_again_what_has_changed_and_nothing_else(folder: Path) -> None:
    seen: dict = {}  # type: ignore[type-arg]
    first = {line.run: line for line in look_below(folder, seen)}
    with hold(folder / "interrupted"):
        write_failure(folder / "finished", "after all")
        second = {line.run: line for line in look_below(folder, seen)}
    assert (second["finished"].state, second["interrupted"].state) == ("failed", "running")
    third = {line.run: line for line in look_below(folder, seen)}
    assert third["interrupted"].state == "interrupted"  # the lock is let go, and no file says so
    assert second["failed"].error is first["failed"].error  # the very same, not an equal one


def test_as_a_table_and_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["runs", str(folder)])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("finished", "failed", "the simulator burst", "512", "100%", "steps/s"):
        assert word in out
    assert "\x1b" not in out and "…" not in out
    with pytest.raises(SystemExit):
        main(["runs", str(folder), "--json"])
    assert {line["state"] for line in json.loads(capsys.readouterr().out)} >= {
        "finished",
        "failed",
        "unreadable",
    }


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SystemExit) as ended:
            main(["runs", str(place)])
        assert ended.value.code == 2
        assert str(place) in capsys.readouterr().err


def test_watching_goes_on_until_ctrl_c(folder: Path) -> None:
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
