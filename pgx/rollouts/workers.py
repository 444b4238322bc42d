"""Processes that run one function each beside the learner: told things, heard, watched, started again."""

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from pgx.core.errors import RunError, UserError, WorkersLost
from pgx.distributed.child_process import LOOK, Process, WorkerTraceback, ending, reap, start
from pgx.distributed.stuck import hung
from pgx.distributed.worker import Failure
from pgx.rollouts.watch import Watch

Target = Callable[[int, "Connection[Any, Any]"], None]


class Workers:
    """Processes that run one function. One that dies is started again; an exception of the function is a defect.

    Messages are small; what is large stands in memory that both see (`descriptors`). A worker reads its messages
    before it writes much: two full pipes would wait for each other.

    Args:
        target: what each runs, with its index and its end of a channel; a function of a module, or a partial of one.
            It goes on until reading from the channel says that the other end is closed (EOFError, which it may
            let through).
        count: how many, >= 1.
        max_restarts: workers that may be started again, over the life of this object and over all of them.
        descriptors: open files that the target finds under the same numbers.
        watch: of the calls that it makes and that may never return; None: it makes none.
    """

    def __init__(
        self,
        target: Target,
        count: int,
        max_restarts: int,
        descriptors: Sequence[int],
        watch: Watch | None,
    ) -> None:
        self.target = target
        self.max_restarts = max_restarts
        self.restarts = 0
        self.revived: list[int] = []  # workers started again since their numbers were last taken away
        self._descriptors = list(descriptors)
        self._running: dict[int, tuple[Process, Connection[Any, Any]]] = {}
        self._watch = watch
        (theirs, lifeline), (shown, shows) = os.pipe(), os.pipe()
        self._theirs = [theirs, shows]
        self._shown = shown
        # What is dropped without being closed, and what is left when Python ends, is closed too.
        self._end = weakref.finalize(self, _end, self._running, [theirs, lifeline, shown, shows], os.getpid())
        try:
            for index in range(count):
                self._start(index)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids, by index."""
        return [self._running[index][0].pid for index in sorted(self._running)]

    def send(self, index: int, message: object) -> None:
        """What is told to the dead is lost, and `receive` tells of the death."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._running[index][1].send(message)

    def receive(self, timeout_s: float) -> list[tuple[int, Any]]:
        """Wait until a worker has sent something, or was started again (then its index is in `revived`).

        What a worker sent before it died is among the messages.

        Args:
            timeout_s: seconds to wait at most.

        Returns:
            (index, message) of all that there was, oldest first for each worker; empty: nothing came.

        Raises:
            RunError: the function raised in a worker (its traceback is the cause), or a worker hangs.
            WorkersLost: workers died more than max_restarts times.
            UserError: the function raised one.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            left = max(0.0, deadline - began)
            ready = wait([channel for _, channel in self._running.values()], min(left, LOOK))
            waited = min(
                time.monotonic() - began, LOOK
            )  # no more, where all processes were stopped meanwhile
            heard, dead = [], []
            for index, (process, channel) in self._running.items():
                ended = process.poll() is not None  # asked first: what it sent before is then all there
                if channel in ready or ended:
                    messages, closed = _read(channel)
                    heard += [(index, message) for message in messages]
                    dead += [index] if closed or ended else []
            for _, message in heard:
                if isinstance(message, Failure):
                    raise error_of(message)
            for index in dead:
                self._restart(index)
            if self._watch is not None and (stuck := self._watch.stuck(waited)) is not None:
                process, _ = self._running[stuck]
                what = (
                    f"worker process {process.pid} (number {stuck}) has been in one call of its environments"
                )
                raise hung(process, self._shown, what, self._watch.timeout)
            if heard or dead or left == 0:
                return heard

    def _start(self, index: int) -> None:
        if self._watch is not None:
            self._watch.begin(index)
        process, channel = start("pgx.distributed.worker", [*self._theirs, *self._descriptors])
        self._running[index] = process, channel
        tied = threading.current_thread() is threading.main_thread()
        self.send(index, (tied, index))
        self.send(index, self.target)

    def _restart(self, index: int) -> None:
        process, channel = self._running[index]
        how = f"worker process {process.pid} (number {index}) {ending(process)}"
        if self.restarts == self.max_restarts:
            raise WorkersLost(f"{how}; runner.max_restarts={self.max_restarts} are used up")
        channel.close()
        self.restarts += 1
        self._start(index)
        self.revived.append(index)

    def close(self) -> None:
        """End all of them; again does nothing."""
        self._end()


def _read(channel: "Connection[Any, Any]") -> tuple[list[Any], bool]:
    """All whole messages that are there, and whether the other end is closed."""
    messages = []
    try:
        while channel.poll():
            messages.append(channel.recv())
    except (EOFError, OSError):  # OSError: it ended within a message
        return messages, True
    return messages, False


def error_of(failure: Failure) -> Exception:
    """What a worker raised, to be raised here; its traceback is the cause."""
    error = UserError(failure.problem) if failure.of_the_user else RunError(failure.problem)
    error.__cause__ = WorkerTraceback(failure.traceback) if failure.traceback else None
    return error


def _end(running: dict[int, tuple[Process, "Connection[Any, Any]"]], lifeline: list[int], owner: int) -> None:
    """Close the channels, which tells the workers; nothing happens in a fork of the process that started them."""
    if os.getpid() != owner:
        return
    for _, channel in running.values():
        channel.close()
    reap([process for process, _ in running.values()])
    for descriptor in lifeline:
        os.close(descriptor)
