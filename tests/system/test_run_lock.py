"""The lock of a run is held by a process and released when it exits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgx.runs.lock import LOCK, LockHolder, RunLockedError, holder, last_holder, lock_run

HOLD = """
import sys, time
from pathlib import Path
from pgx.runs.lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def other_process(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def held(tmp_path: Path) -> "subprocess.Popen[str]":
    process = other_process(tmp_path)
    yield process
    process.kill()
    process.communicate()


def test_a_folder_that_another_process_holds_is_refused_with_the_name_of_the_process(
    tmp_path: Path, held: "subprocess.Popen[str]"
) -> None:
    who = LockHolder(os.uname().nodename, held.pid)
    assert holder(tmp_path) == who
    with pytest.raises(RunLockedError) as refused, lock_run(tmp_path):
        raise AssertionError("both hold it")
    assert str(held.pid) in str(refused.value) and str(tmp_path) in str(refused.value)
    assert holder(tmp_path) == who  # the refused process has not overwritten it


def test_a_killed_process_releases_the_lock(tmp_path: Path, held: "subprocess.Popen[str]") -> None:
    held.send_signal(signal.SIGKILL)
    held.wait()
    assert holder(tmp_path) is None
    assert last_holder(tmp_path) == LockHolder(os.uname().nodename, held.pid)
    with lock_run(tmp_path):
        assert last_holder(tmp_path) == LockHolder(os.uname().nodename, os.getpid())
    assert holder(tmp_path) is None


def test_only_one_of_many_concurrent_processes_holds_the_lock(tmp_path: Path) -> None:
    script = HOLD.replace("time.sleep(600)", "input()")
    command = [sys.executable, "-c", script, str(tmp_path)]
    pipe = subprocess.PIPE
    racing = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(6)]
    try:
        while len([p for p in racing if p.poll() is None]) > 1:
            time.sleep(0.05)
        (winner,) = [p for p in racing if p.poll() is None]
        found = holder(tmp_path)
        assert found is not None and found.pid == winner.pid
        said = [p.communicate("\n") for p in racing]
        assert sum(out == "held\n" for out, _ in said) == 1
        assert sum("is using it" in err for _, err in said) == 5
    finally:
        for process in racing:
            process.kill()


LOOK = """
import fcntl, sys, time
with open(sys.argv[1]) as file:
    fcntl.flock(file, fcntl.LOCK_SH)
    print("looking", flush=True)
    time.sleep(0.4)
"""


def test_reading_the_holder_blocks_no_other_process(tmp_path: Path) -> None:
    """Reading the holder takes the lock for an instant, here a long one; a process that needs the lock waits."""
    assert holder(tmp_path) is None and not (tmp_path / LOCK).exists()
    (tmp_path / LOCK).touch()
    command = [sys.executable, "-c", LOOK, str(tmp_path / LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looking:
        assert looking.stdout is not None and looking.stdout.readline() == "looking\n"
        with lock_run(tmp_path):
            assert holder(tmp_path) == LockHolder(os.uname().nodename, os.getpid())
