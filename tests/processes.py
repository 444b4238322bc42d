"""What tests ask of processes and wait for."""

import time
from collections.abc import Callable
from pathlib import Path


def runs(pid: int) -> bool:
    """Whether a process is there and is no mere entry that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def until(done: Callable[[], bool]) -> None:
    for _ in range(6000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it never came about")


def assert_only_stopping(err: str) -> None:
    """A run that was interrupted says that it stops, and perhaps what it drops, and nothing else."""
    first, *more = err.strip().splitlines()
    assert first == "stopping (Ctrl-C again: exit at once)"
    assert all(line.startswith("pgx: stopped within an iteration; ") for line in more) and len(more) < 2, err
