"""Cores: threads and processes that step environments are pinned if there is one for each core."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgx.core.cpu import available_cores, has_one_core_each
from pgx.envs.envpool_backend import EnvPoolVector
from pgx.envs.process_backend import ProcessVector

CORES = os.cpu_count() or 1
ALL = set(range(CORES))

pytestmark = [
    pytest.mark.skipif(os.sched_getaffinity(0) != ALL, reason="this process may not use every core"),
    pytest.mark.skipif(CORES > 16, reason="one worker process per core takes minutes here"),
]


def affinities_of_threads(number: int, **kwargs: int) -> list[set[int]]:
    """Return the affinities of EnvPool's threads, including those that do not step environments."""
    before = set(Path("/proc/self/task").iterdir())
    envs = EnvPoolVector("CartPole-v1", CORES, kwargs, number)
    new = [int(task.name) for task in set(Path("/proc/self/task").iterdir()) - before]
    found = [os.sched_getaffinity(thread) for thread in new]
    envs.close()
    return found


def affinities_of_workers(number: int) -> list[set[int]]:
    """Return the affinities of the worker processes."""
    envs = ProcessVector("CartPole-v1", CORES, {}, number, timeout=60.0)
    found = [os.sched_getaffinity(worker.process.pid) for worker in envs._workers]
    envs.close()
    return found


@pytest.mark.skipif(CORES == 1, reason="needs several cores")
@pytest.mark.parametrize("of", [affinities_of_threads, affinities_of_workers])
def test_one_thread_per_core_is_pinned_to_a_core_each(of: Callable[[int], list[set[int]]]) -> None:
    found = of(CORES)
    assert all(cores == ALL or len(cores) == 1 for cores in found)
    assert all(found.count({core}) == 1 for core in ALL)


@pytest.mark.skipif(CORES == 1, reason="needs several cores")
@pytest.mark.parametrize("of", [affinities_of_threads, affinities_of_workers])
def test_fewer_threads_than_cores_are_not_pinned(of: Callable[[int], list[set[int]]]) -> None:
    found = of(CORES - 1)
    assert len(found) >= CORES - 1 and all(cores == ALL for cores in found)


def test_the_user_s_thread_affinity_is_kept() -> None:
    assert all(cores == ALL for cores in affinities_of_threads(CORES, thread_affinity_offset=-1))


def test_the_caller_is_not_pinned() -> None:
    affinities_of_threads(CORES)
    assert os.sched_getaffinity(0) == ALL


def cpu_time(pid: int) -> int:
    """Return the clock ticks of CPU time of a process."""
    of = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(of[11]) + int(of[12])


def test_idle_workers_sleep() -> None:
    envs = ProcessVector("CartPole-v1", CORES, {}, CORES, timeout=60.0)
    envs.reset(0)

    def ran() -> list[int]:
        return [cpu_time(worker.process.pid) for worker in envs._workers]

    before, now, deadline = [0], ran(), time.monotonic() + 30
    while before != now:
        assert time.monotonic() < deadline, "a worker is still awake"
        time.sleep(0.3)
        before, now = now, ran()
    assert all(
        len(os.sched_getaffinity(worker.pid)) == 1 for worker in envs._workers
    )  # pinned workers, which busy-wait at first
    envs.close()


@pytest.mark.skipif(CORES == 1, reason="needs several cores")
def test_nothing_is_pinned_on_a_part_of_the_machine() -> None:
    os.sched_setaffinity(0, {0})
    try:
        assert not has_one_core_each(1) and not has_one_core_each(CORES)
    finally:
        os.sched_setaffinity(0, ALL)


@pytest.mark.parametrize(
    ("written", "granted"), [("max 100000", None), ("50000 100000", 1), ("150000 100000", 2), ("", None)]
)
def test_available_cores_follow_the_quota_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, granted: int | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu.max").write_text(written)
    assert available_cores(tmp_path / "cpu.max") == (granted or 8)
    assert available_cores(tmp_path / "missing") == 8
