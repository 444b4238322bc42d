"""A sweep that is killed and resumed ends with the same bits as an uninterrupted one."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pgx.sweeps.progress import read_progress, resumable
from tests.system.command import SMALL, begin, jobs, same, state, summary, wait_for
from tests.warm import pgx

SWEEP = [
    "-m",
    "algo=ppo,a2c",
    "env=CartPole-v1,Acrobot-v1",
    "seed=range(0,3)",
    *SMALL,
    "trainer.total_steps=2048",
    "trainer.checkpoint_every=256",
    "runner.rollout_steps=64",
    "logger.every=1",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Run the sweep without interruption, one run after another in one process; return its runs."""
    cwd = tmp_path_factory.mktemp("whole")
    said = pgx("train", *SWEEP, "hydra.sweep.dir=sweep", cwd=cwd)
    assert said.returncode == 0, said.stderr
    return jobs(cwd / "sweep")


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def session(leader: int) -> list[Path]:
    """Return the remaining processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its_session, *_ = stat.read_text().rsplit(")", 1)[1].split()
            if int(its_session) == leader and state != "Z":
                found.append(stat)
    return found


def kill(process: "subprocess.Popen[str]", how: str) -> None:
    """Kill the process, alone or with its group."""
    if how == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "how"),
    [("joblib", "group"), ("joblib", "alone"), ("ray", "alone"), ("submitit_local", "group")],
)
def test_a_sweep_that_is_killed_and_resumed_ends_with_the_same_bits(
    whole: list[Path], tmp_path: Path, launcher: str, how: str
) -> None:
    folder = tmp_path / "sweep"
    process = begin("train", *SWEEP, "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}", cwd=tmp_path)

    def half_way() -> bool:
        if not (folder / "sweep.json").is_file():
            return False
        seen = [read_progress(run) for run in jobs(folder)]
        finished = sum(run.state == "finished" for run in seen)
        return finished >= 3 and any(run.state == "running" and 512 < run.steps < 1536 for run in seen)

    try:
        wait_for(half_way, process)
    finally:
        kill(process, how)
    wait_for(lambda: not any(read_progress(run).state == "running" for run in jobs(folder)))  # workers notice
    if launcher == "joblib":
        wait_for(lambda: not session(process.pid))
    before = {run: read_progress(run) for run in jobs(folder)}
    finished = {run: (run / "summary.json").read_bytes() for run in before if before[run].state == "finished"}
    cut = [run for run in before if before[run].state == "interrupted" and resumable(run)]
    assert 3 <= len(finished) < 12 and cut
    kept = {run: rows(run) for run in cut}
    said = pgx("sweep", "status", "sweep", cwd=tmp_path)
    assert said.returncode == 0 and f"{len(finished)} finished" in said.stdout and "eta" in said.stdout

    said = pgx("sweep", "resume", "sweep", cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "12 finished" in said.stdout
    assert {run: (run / "summary.json").read_bytes() for run in finished} == finished  # not run again
    for (
        run
    ) in cut:  # resumed rather than restarted: the times of rows are those of the process that wrote them
        assert rows(run)[0] == kept[run][0]
    for alone, resumed in zip(whole, jobs(folder), strict=True):
        assert same(alone, resumed)
        assert summary(alone)["final_return"] == summary(resumed)["final_return"]
    assert state(whole[0]) and not same(whole[0], whole[1])  # otherwise `same` compares nothing
