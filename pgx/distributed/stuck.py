"""Where a process is that does not answer, and what of that goes into a message."""

import os
import re
import select
import sysconfig
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import NamedTuple

from pgx.core.errors import RunError
from pgx.distributed.child import ASK
from pgx.distributed.child_process import PATIENCE, Process, WorkerTraceback

QUIET = 0.25  # seconds without another line after which what was written is taken for all of it
FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class Frame(NamedTuple):
    """A line of code that a thread is at."""

    file: str
    line: int
    function: str


def hung(process: Process, descriptor: int, problem: str, seconds: float) -> RunError:
    """The end of a process whose environments do not answer, and where they were, to be raised.

    Args:
        process, descriptor: as in `give_up`.
        problem: what it has been doing, in words.
        seconds: for so long, which is env.worker_timeout.
    """
    said = give_up(process, descriptor)
    where = f", {found}" if (found := place(frames(said))) else ""
    error = RunError(
        f"{problem} for {seconds:g} s{where}; where that is no more than it needs, raise env.worker_timeout={seconds:g}"
    )
    error.__cause__ = WorkerTraceback(said) if said else None
    return error


def give_up(process: Process, descriptor: int) -> str:
    """Ask a process where it is, and kill it.

    Args:
        process: in which `show_when_asked` was called.
        descriptor: read end of its pipe.

    Returns:
        The tracebacks of its threads, most recent calls first; empty where it did not say.
    """
    _read(descriptor, 0.0)  # what others may have asked for
    process.send_signal(ASK)
    said = _read(descriptor, PATIENCE)
    process.kill()
    with suppress(TimeoutExpired):  # it hangs in the system itself, which ends it when it can
        process.wait(PATIENCE)
    return said


def _read(descriptor: int, patience: float) -> str:
    """All that is there, and comes soon after it."""
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    said = b""
    while ready.poll(1000 * patience) and (more := os.read(descriptor, 65536)):
        said, patience = said + more, QUIET
    return said.decode(errors="replace")


def frames(said: str) -> list[Frame]:
    """Of the thread that answered, usually the main one; innermost first."""
    current = said.partition("Current thread")[2].partition("\n\n")[0]
    return [Frame(file, int(line), function) for file, line, function in FRAME.findall(current)]


def frames_of(error: BaseException) -> list[Frame]:
    """Where an exception was raised, innermost first."""
    walked = [
        Frame(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return walked[::-1]


def place(where: Iterable[Frame]) -> str:
    """`in step (myenv.py:42)`: the innermost line that is the user's; empty where there are no lines at all.

    Where no line is the user's it is one of another package, or of Python's library.
    """
    ranked = sorted(where, key=lambda frame: _distance(frame.file))  # stable: innermost first among equals
    if not ranked:
        return ""
    file, line, function = ranked[0]
    return f"in {function} ({Path(file).name}:{line})"


def _distance(file: str) -> int:
    """How far code is from what a user wrote."""
    paths = sysconfig.get_paths()
    if file.startswith(str(Path(__file__).parents[1]) + os.sep):
        return 3
    if file.startswith("<"):  # of frozen modules and of texts that were executed
        return 2
    if any(file.startswith(paths[which] + os.sep) for which in ("purelib", "platlib")):
        return 1
    return 2 if file.startswith(paths["stdlib"] + os.sep) else 0
