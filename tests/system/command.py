"""Small sweeps in processes that tests can kill."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.warm import TIMEOUT, environment

PGX = [sys.executable, "-m", "pgx"]
SMALL = ["env.num_envs=2", "runner.rollout_steps=32", "logger.sinks=[]", "env.backend=gymnasium"]
TINY = [*SMALL, "algo=a2c", "env=CartPole-v1", "trainer.total_steps=128"]


def begin(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a command in a new session, so that a signal to its group reaches no other process."""
    with (cwd / "said.txt").open("a") as said:
        return subprocess.Popen(
            [*PGX, *arguments],
            cwd=cwd,
            env=environment(),
            stdout=said,
            stderr=said,
            text=True,
            start_new_session=True,
        )


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for a condition; raise if the process ends before."""
    deadline = time.monotonic() + TIMEOUT
    while not happened():
        assert process is None or process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def jobs(folder: Path) -> list[Path]:
    """Return the folders of a sweep's runs, in the order of its plan."""
    return [Path(job["run_dir"]) for job in json.loads((folder / "sweep.json").read_text())["jobs"]]


def summary(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return read


def state(run: Path) -> list[tuple[str, Any]]:
    """Return the learned state of a run by name: networks, normalizers, optimizers, random streams."""
    saved = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    return list(_leaves({key: saved[key] for key in ("agent", "learner", "runner")}, ""))


def same(one: Path, other: Path) -> bool:
    """Return whether the learned states of two runs are equal to the bit."""
    pairs = list(zip(state(one), state(other), strict=True))
    return all(
        a == b and (torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y) for (a, x), (b, y) in pairs
    )


def _leaves(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            yield from _leaves(value[key], f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{name}.{number}")
    else:
        yield name, value
