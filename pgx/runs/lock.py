"""Which process works in a folder: a lock that the system itself lets go of when the process dies, however it dies."""

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
LOCK_TIMEOUT = 1.0  # seconds: who asks for the holder has the lock himself for an instant


@dataclass(frozen=True)
class LockHolder:
    """The process that holds a lock, or held it last."""

    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class RunLockedError(UserError):
    """Another process works in the folder."""


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Be the only process that works in a folder, while the block lasts.

    The file stays when the lock is let go: a lock is what the system says it is, not the presence of a file, so that
    what a killed process leaves behind holds up nobody.

    Raises:
        RunLockedError: another process holds it; the message names it.
    """
    with (folder / LOCK).open("a+") as file:
        give_up = time.monotonic() + LOCK_TIMEOUT
        while not _taken(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > give_up:
                raise RunLockedError(f"{folder}: {_written(folder) or 'another process'} is at work there")
            time.sleep(0.05)
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}, allow_nan=False) + "\n")
        file.flush()
        yield


def holder(folder: Path) -> LockHolder | None:
    """The process that works in a folder; None where there is none, or no longer."""
    try:
        file = (folder / LOCK).open()
    except FileNotFoundError:
        return None
    with file:
        if _taken(file.fileno(), fcntl.LOCK_SH):
            return None
    return _written(folder) or LockHolder("an unknown host", 0)


def last_holder(folder: Path) -> LockHolder | None:
    """The process that works in a folder or was the last to do so."""
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
    except (OSError, ValueError, KeyError):  # not there, or caught between truncation and writing
        return None
