"""WorkerPool: messages, restarts, and no processes left."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pgx.core.errors import RunError, UserError
from pgx.distributed.worker_pool import Target, WorkerPool
from tests.processes import file_names, is_running, wait_until
from tests.system.targets import dies_at_once, echo, leaves_word, reads_a_file

ROOT = Path(__file__).parents[2]


@contextmanager
def running(
    target: Target, count: int, max_restarts: int = 0, descriptors: tuple[int, ...] = ()
) -> Iterator[WorkerPool]:
    workers = WorkerPool(target, count, max_restarts, descriptors, None)
    try:
        yield workers
    finally:
        workers.close()


def receive(workers: WorkerPool, count: int) -> list[tuple[int, Any]]:
    """Return `count` messages, or fewer if a worker is restarted before."""
    received: list[tuple[int, Any]] = []
    while len(received) < count and not workers.restarted:
        received += workers.receive(60)
    return received


def test_messages_go_to_and_come_from_workers_by_index() -> None:
    with running(echo, 3) as workers:
        assert workers.receive(0) == []
        for index in (2, 0, 1, 1):
            workers.send(index, 10 * index)
        assert sorted(receive(workers, 4)) == [(0, (0, 0)), (1, (1, 10)), (1, (1, 10)), (2, (2, 20))]
        workers.send(0, "threads")
        assert receive(workers, 1) == [(0, 1)]


@pytest.mark.parametrize("word", ["die after an answer", "exit"])
def test_an_exited_worker_is_restarted_and_its_messages_arrive(word: str) -> None:
    with running(echo, 2, max_restarts=1) as workers:
        first = workers.pids
        workers.send(1, word)
        wait_until(lambda: not is_running(first[1]))  # before the parent receives
        received = receive(workers, 2)
        assert received == ([(1, (1, word))] if word != "exit" else [])
        assert (workers.restarted, workers.restarts) == ([1], 1)
        assert workers.pids[0] == first[0] and workers.pids[1] != first[1] and not is_running(first[1])
        workers.restarted.clear()
        workers.send(1, "again")
        workers.send(0, "still")
        assert sorted(receive(workers, 2)) == [(0, (0, "still")), (1, (1, "again"))]


def test_a_killed_worker_is_noticed_while_another_hangs() -> None:
    with running(echo, 2, max_restarts=1) as workers:
        workers.send(0, "sleep")
        os.kill(workers.pids[1], signal.SIGKILL)
        assert receive(workers, 1) == [] and workers.restarted == [1]


@pytest.mark.parametrize(
    ("word", "how"), [("exit", "exit code 7"), ("die after an answer", r"signal 9 \(Killed\)")]
)
def test_without_restarts_left_the_error_names_the_worker(word: str, how: str) -> None:
    with running(echo, 2, max_restarts=1) as workers:
        for _ in range(2):
            workers.send(1, word)
            pid = workers.pids[1]
            if workers.restarts:
                with pytest.raises(
                    RunError, match=rf"{pid} \(number 1\) .*{how}.*no restarts left, runner.max_restarts=1"
                ):
                    receive(workers, 2)
            else:
                receive(workers, 2)
                workers.restarted.clear()


def test_workers_that_exit_at_once_are_not_restarted_forever() -> None:
    with running(dies_at_once, 2, max_restarts=3) as workers:
        with pytest.raises(RunError, match="exit code 5"):
            while True:
                workers.receive(60)
        assert workers.restarts == 3


def test_an_exception_is_not_restarted_and_its_traceback_is_the_cause() -> None:
    with running(echo, 2, max_restarts=5) as workers:
        workers.send(0, "raise")
        with pytest.raises(RunError, match="KeyError: 'what was lost'") as caught:
            receive(workers, 1)
        assert "targets.py" in str(caught.value.__cause__) and "KeyError" in str(caught.value.__cause__)
        assert workers.restarts == 0


def test_a_user_error_stays_a_user_error() -> None:
    with running(echo, 1) as workers:
        workers.send(0, "complain")
        with pytest.raises(UserError, match="nothing of the kind"):
            receive(workers, 1)


def test_workers_inherit_descriptors(tmp_path: Path) -> None:
    descriptor = os.memfd_create("pgx")
    os.write(descriptor, b"seen")
    try:
        with running(partial(reads_a_file, descriptor), 2, descriptors=(descriptor,)) as workers:
            assert sorted(receive(workers, 2)) == [(0, b"seen"), (1, b"seen")]
    finally:
        os.close(descriptor)


def test_closing_waits_for_workers_and_kills_those_that_hang(tmp_path: Path) -> None:
    gc.collect()
    before = file_names("/proc/self/fd")
    workers = WorkerPool(partial(leaves_word, str(tmp_path)), 1, 0, (), None)
    stuck = WorkerPool(echo, 1, 0, (), None)
    stuck.send(0, "sleep")
    assert receive(workers, 1) == [(0, "here")]
    pids = workers.pids + stuck.pids
    for each in (workers, stuck, workers):
        each.close()
    assert (tmp_path / "0").exists()
    assert not any(map(is_running, pids))
    assert file_names("/proc/self/fd") <= before


PARENT = """
import time
from pgx.distributed.worker_pool import WorkerPool
from tests.system.targets import echo
workers = WorkerPool(echo, 2, 0, (), None)
workers.send(0, "hello")
while not workers.receive(60): pass
workers.send(1, "sleep")
print(*workers.pids, flush=True)
time.sleep(1e6)
"""


def test_workers_exit_with_a_killed_parent() -> None:
    """One worker waits for a message, the other sleeps. The script has no `if __name__ == "__main__"`."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stderr is not None
    pids = list(map(int, parent.stdout.readline().split()))
    assert len(pids) == 2 and all(map(is_running, pids))
    parent.kill()
    try:
        wait_until(lambda: not any(map(is_running, pids)))
    finally:  # also after a failure
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)
    assert parent.stderr.read() == ""
    parent.communicate()


def test_workers_do_not_receive_the_terminal_s_interrupt() -> None:
    with running(echo, 1) as workers:
        workers.send(0, "a")
        assert receive(workers, 1) == [(0, (0, "a"))]
        os.kill(workers.pids[0], signal.SIGINT)
        workers.send(0, "b")
        assert receive(workers, 1) == [(0, (0, "b"))]
        assert os.getpgid(workers.pids[0]) != os.getpgid(0)
