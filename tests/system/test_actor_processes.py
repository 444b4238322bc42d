"""Runs with actors in a shell: Ctrl-C and SIGKILL; and shared parameters with a writing process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from pgx.distributed.shared_memory import allocate
from pgx.distributed.worker_pool import WorkerPool
from pgx.rollouts.shared_parameters import SharedParameters, parameter_specs
from tests.processes import assert_only_stopping, is_running, wait_until
from tests.system.targets import SIZES, publishes

ROOT = Path(__file__).parents[2]


def children(pid: int) -> list[int]:
    """Return the descendants of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found += [int(path.parent.name), *children(int(path.parent.name))]
    return found


@contextmanager
def training(run: Path, *overrides: str) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """Start a run in its own process group, as a terminal does; yield it and its descendants."""
    few = ["env.num_envs=4", "runner.workers=2", "trainer.total_steps=100000000", "trainer.compile=false"]
    quiet = ["logger.console=off", "logger.sinks=[]", "logger.every=1", f"run_dir={run}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pgx", "train", "algo=impala", "env=CartPole-v1", *few, *quiet, *overrides],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    below: list[int] = []
    try:
        metrics = run / "metrics.jsonl"
        wait_until(lambda: process.poll() is not None or (metrics.exists() and metrics.stat().st_size > 0))
        below = children(process.pid)
        yield process, below
    finally:  # also after a failure
        for pid in filter(is_running, [process.pid, *below]):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("inference", [pytest.param("actor", marks=pytest.mark.slow), "learner"])
def test_ctrl_c_ends_a_run_with_a_checkpoint_and_no_traceback(tmp_path: Path, inference: str) -> None:
    with training(tmp_path / "run", f"runner.inference={inference}") as (process, below):
        assert len(below) == 2
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr is not None
        assert_only_stopping(process.stderr.read())
        assert not any(map(is_running, below))
    assert (tmp_path / "run" / "checkpoints" / "last.pt").exists()


def test_actors_and_their_environment_processes_exit_with_a_killed_learner(
    tmp_path: Path,
) -> None:
    nested = ["env.backend=processes", "env.num_threads=4"]
    with training(tmp_path / "run", *nested) as (process, below):
        assert len(below) == 2 + 4 + 1  # the learner's environment only provides the spaces
        process.kill()
        wait_until(lambda: not any(map(is_running, below)))
        assert process.stderr is not None and process.stderr.read() == ""


def test_parameters_are_read_as_a_whole_during_writes() -> None:
    tensors = {name: torch.zeros(size) for name, size in SIZES.items()}
    columns, memory = parameter_specs(tensors), allocate()
    workers = WorkerPool(partial(publishes, memory, columns), 1, 0, (memory,), None)
    try:
        shared, seen = SharedParameters(memory, columns), set()
        wait_until(lambda: shared.read(tensors) > 0)
        for _ in range(2000):
            version = shared.read(tensors)
            assert all(bool((tensor == version).all()) for tensor in tensors.values())
            seen.add(version)
        assert len(seen) > 1
    finally:
        workers.close()
        os.close(memory)
