"""Helpers for tests with processes."""

import time
from collections.abc import Callable
from pathlib import Path


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def file_names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for a condition, for at least a minute."""
    for _ in range(6000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("the condition did not become true")


def assert_only_stopping(err: str) -> None:
    """Assert that an interrupted run printed only that it stops, and at most one line on dropped work."""
    first, *more = err.strip().splitlines()
    assert first == "stopping (Ctrl-C again: exit at once)"
    assert all(line.startswith("pgx: stopped within an iteration; ") for line in more) and len(more) < 2, err
