"""Where processes of several machines find what changes while they work: an actor of Ray's, and no more than that.

The parent's side of a worker process: starting it, saying how it ended, ending it.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any


class Board:
    """The newest parameters that were published, and how many actors took the place of others that died.

    It imports no torch: what is published are references into the object store, which it never looks into.
    """

    def __init__(self) -> None:
        self._newest: tuple[int, list[Any]] | None = None
        self._met: set[int] = set()
        self._deaths = 0

    def publish(self, version: int, references: list[Any]) -> int:
        """Put other parameters in place of those that are there; returns how many actors have died.

        Args:
            version: of the parameters.
            references: to them; in a list, since Ray would look up a bare one.
        """
        self._newest = version, references
        return self._deaths

    def newest(self) -> tuple[int, list[Any]] | None:
        """Version and references of what was published last; None: nothing was."""
        return self._newest

    def join(self, index: int) -> int:
        """A process begins to be an actor; returns 0, or where one was before it how many have died by now.

        Args:
            index: of the actor.
        """
        if index not in self._met:
            self._met.add(index)
            return 0
        self._deaths += 1
        return self._deaths

    def deaths(self) -> int:
        """Actors that died and were started again."""
        return self._deaths


# A fresh interpreter rather than multiprocessing's spawn, which would import the user's script in every worker: a
# script needs no `if __name__ == "__main__"` for this, and one that imports torch costs no worker its memory.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from multiprocessing.connection import Connection; "
    "from pgx.core.streams import guard, ignore; guard(ignore); "
    "from {module} import serve; serve(Connection(int(sys.argv[2])), *map(int, sys.argv[3:]))"
)
LOOK = 0.5  # seconds between looks whether workers are alive while none answers
PATIENCE = 2.0  # seconds for workers to end by themselves

Process = subprocess.Popen[bytes]


class WorkerTraceback(Exception):
    """Where in a worker something was raised; the cause of what is raised here."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0].rstrip()}"


def start(module: str, descriptors: Sequence[int]) -> tuple[Process, "Connection[Any, Any]"]:
    """A process that runs module.serve(channel, *descriptors), and this end of its channel.

    Args:
        module: where `serve` is.
        descriptors: open files that it is given under the same numbers, the lifeline among them (`processes/child.py`).
    """
    channel, theirs = Pipe()
    process = subprocess.Popen(
        [
            sys.executable,
            *_flags(),
            "-c",
            START.format(module=module),
            json.dumps([*map(str, sys.path)], allow_nan=False),
            *map(str, [theirs.fileno(), *descriptors]),
        ],
        pass_fds=[theirs.fileno(), *descriptors],
        stdin=subprocess.DEVNULL,
        process_group=0,  # out of reach of the terminal's Ctrl-C from its first moment
    )
    theirs.close()
    return process, channel


def ending(process: Process) -> str:
    """How a process that has gone silent came to its end, in words; one that has not is killed."""
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    how = f"ended with exit code {code}"
    if code < 0:
        how = f"was ended by signal {-code} ({signal.strsignal(-code)})"
    if code == -signal.SIGKILL:
        how += "; where nobody sent it, memory ran out"
    return how


def reap(processes: Sequence[Process]) -> None:
    """Wait for processes that were told to end; kill those that take too long."""
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _flags() -> list[str]:
    """Those of this interpreter that change what an environment does: no asserts, warnings as errors.

    And -P, so that what lies in the current folder is found when this process's path says so, and not before.
    """
    return ["-P", *["-O"] * sys.flags.optimize, *(f"-W{option}" for option in sys.warnoptions)]
