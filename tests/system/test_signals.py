"""Signals stop a run: SIGTERM from a batch system, one Ctrl-C, two Ctrl-C."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch

from pgx.core.errors import Preempted
from tests.processes import wait_until

SMALL = ["env=CartPole-v1", "env.backend=gymnasium", "env.num_envs=4", "algo=a2c", "trainer.compile=false"]


TELLING = """
from pathlib import Path

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv


class Telling(CartPoleEnv):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 100:
            Path("under_way").touch()
        return super().step(action)


gymnasium.register("Telling-v0", Telling)
"""


@contextmanager
def training(run: Path, *overrides: str) -> Iterator["subprocess.Popen[str]"]:
    command = [
        sys.executable,
        "-m",
        "pgx",
        "train",
        *SMALL,
        *overrides,
        f"run_dir={run}",
        "logger.console=off",
    ]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=run.parent, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(stream: IO[str] | None, words: str) -> None:
    assert stream is not None
    assert any(words in line for line in stream), f"it never said {words!r}"


def steps(run: Path) -> int:
    found: int = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["counters"]["steps"]
    return found


def test_sigterm_stops_a_run_with_a_checkpoint_and_exit_code_143(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with training(run, "trainer.total_steps=100000000") as process:
        wait_until(lambda: (run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").stat().st_size > 0)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == Preempted.exit_code == 128 + signal.SIGTERM
    assert "Traceback" not in err and "pgx train --resume run" in out
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("interrupted", None)
    assert steps(run) == summary["steps"] > 0
    went_on = subprocess.run(
        [
            sys.executable,
            "-m",
            "pgx",
            "train",
            "--resume",
            str(run),
            f"trainer.total_steps={summary['steps'] + 200}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert went_on.returncode == 0, went_on.stderr
    assert steps(run) >= summary["steps"] + 200


def test_ctrl_c_ends_a_run_in_the_middle_of_an_iteration(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "telling.py").write_text(TELLING)
    long = "runner.rollout_steps=10000000"  # the iteration takes minutes
    with training(run, "env=telling:Telling-v0", long, "trainer.total_steps=100000000") as process:
        wait_until((tmp_path / "under_way").is_file)
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, "stopping (Ctrl-C again: exit at once)")
        assert process.wait(timeout=60) == 130  # seconds; it takes about one
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["error"]) == ("interrupted", 0, None)
    assert steps(run) == 0
