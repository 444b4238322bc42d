"""Lock of a run's folder, which the system releases when the process exits or is killed."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgx.core.errors import UserError

LOCK = "run.lock"
LOCK_TIMEOUT = 1.0  # seconds: `holder` takes the lock for a moment


@dataclass(frozen=True)
class LockHolder:
    """Process that holds a lock or held it last."""

    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class RunLockedError(UserError):
    """Another process holds the lock of the folder."""


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder within the block.

    The lock is `flock`, not the presence of the file: the file remains after release, and the file of a killed process
    blocks nobody.

    Raises:
        RunLockedError: another process holds the lock; the message names it.
    """
    with (folder / LOCK).open("a+") as file:
        give_up = time.monotonic() + LOCK_TIMEOUT
        while not _taken(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > give_up:
                raise RunLockedError(f"{folder}: {_written(folder) or 'another process'} is using it")
            time.sleep(0.05)
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}, allow_nan=False) + "\n")
        file.flush()
        yield


def holder(folder: Path) -> LockHolder | None:
    """Return the process that holds the lock of a folder; None if it is free."""
    try:
        file = (folder / LOCK).open()
    except FileNotFoundError:
        return None
    with file:
        if _taken(file.fileno(), fcntl.LOCK_SH):
            return None
    return _written(folder) or LockHolder("an unknown host", 0)


def last_holder(folder: Path) -> LockHolder | None:
    """Return the process that holds the lock of a folder or held it last."""
    return _written(folder)


def _taken(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written(folder: Path) -> LockHolder | None:
    try:
        said = json.loads((folder / LOCK).read_text())
        return LockHolder(str(said["host"]), int(said["pid"]))
    except (OSError, ValueError, KeyError):  # missing, or read between truncation and writing
        return None
