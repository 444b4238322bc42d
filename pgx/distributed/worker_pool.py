"""Pools of worker processes that run one function each and are restarted when they exit."""

import os
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError, WorkersLost
from pgx.distributed.shared_memory import ArraySpec, allocate, attach
from pgx.distributed.worker_process import DISCONNECTED, POLL_SECONDS, WorkerProcess, WorkerTraceback, stop

Target = Callable[[int, "Connection[Any, Any]"], None]
CallCounts = NDArray[np.int64]  # [W], odd while a worker is in a call of its environments


def attach_call_counts(memory: int, workers: int) -> CallCounts:
    """Map the call counters of all workers."""
    return attach(memory, [ArraySpec("calls", (workers,), np.int64)])["calls"]


class Watchdog:
    """Detector of workers that have been in one call of their environments for too long.

    Args:
        workers: W.
        timeout: seconds for a call.
    """

    def __init__(self, workers: int, timeout: float) -> None:
        self.timeout = timeout
        self.memory = allocate()
        weakref.finalize(self, os.close, self.memory)
        self._calls = attach_call_counts(self.memory, workers)
        self._previous = self._calls.copy()
        self._waited = np.zeros(workers)

    def reset(self, worker: int) -> None:
        """Forget the calls of a worker that is restarted, perhaps because it exited within a call."""
        self._calls[worker] = self._previous[worker] = 0

    def hanging(self, seconds: float) -> int | None:
        """Return the first worker that exceeds the timeout, or None.

        Args:
            seconds: waited for the workers since the previous call. Other time does not count.
        """
        same = (self._calls == self._previous) & (self._calls % 2 == 1)
        self._previous = self._calls.copy()
        self._waited = np.where(same, self._waited + seconds, 0.0)
        late = np.flatnonzero(self._waited >= self.timeout)
        return int(late[0]) if late.size else None


@dataclass(frozen=True)
class WorkerFailure:
    """Exception that the function of a worker raised."""

    problem: str
    user_error: bool
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> "WorkerFailure":
        """Describe an exception. An error of pgx has only the traceback of its cause, which an environment raised."""
        own = isinstance(error, UserError | RunError)
        problem = str(error) if own else f"{type(error).__name__}: {error}"
        reported = error.__cause__ if own else error
        trace = "".join(traceback.format_exception(reported)) if reported else ""
        return cls(problem, isinstance(error, UserError), trace)

    def error(self) -> Exception:
        """Return the exception to raise in the parent, with the worker's traceback as its cause."""
        error = UserError(self.problem) if self.user_error else RunError(self.problem)
        error.__cause__ = WorkerTraceback(self.traceback) if self.traceback else None
        return error


class WorkerPool:
    """Worker processes that run the same function. Workers that exit are restarted; exceptions of the function are not.

    Messages are small; large data is in shared memory (`descriptors`). A worker must read its messages before it
    writes much, since two full channels would block both ends.

    Args:
        target: called with the worker's index and its end of the channel; a function of a module, or a partial of
            one. It runs until the channel is closed (EOFError, which it may let pass).
        count: W >= 1.
        max_restarts: over the lifetime of the pool and all workers.
        descriptors: open files that the target finds under the same numbers.
        watchdog: of the environment calls that the target makes; None: it makes none.
    """

    def __init__(
        self,
        target: Target,
        count: int,
        max_restarts: int,
        descriptors: Sequence[int],
        watchdog: Watchdog | None,
    ) -> None:
        self.target = target
        self.max_restarts = max_restarts
        self.restarts = 0
        self.restarted: list[int] = []  # workers restarted since the caller last cleared the list
        self._descriptors = list(descriptors)
        self._workers: list[WorkerProcess] = []
        self._watchdog = watchdog
        # Also closes a pool that is garbage-collected or still open at exit.
        self._close = weakref.finalize(self, stop, self._workers)
        try:
            for index in range(count):
                self._workers.append(self._start(index))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids, by index."""
        return [worker.pid for worker in self._workers]

    def send(self, index: int, message: object) -> None:
        """Send a message to a worker. Messages to exited workers are dropped; `receive` restarts these."""
        self._workers[index].send(message)

    def receive(self, timeout_s: float) -> list[tuple[int, Any]]:
        """Wait for messages, or for a restart (then its index is in `restarted`).

        Messages that a worker sent before it exited are returned.

        Args:
            timeout_s: maximum wait in seconds.

        Returns:
            (index, message) pairs, oldest first for each worker; empty after the timeout.

        Raises:
            RunError: the function raised in a worker (its traceback is the cause), or a worker hangs.
            WorkersLost: workers exited more than max_restarts times.
            UserError: the function raised one.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            start = time.monotonic()
            left = max(0.0, deadline - start)
            ready = wait([worker.channel for worker in self._workers], min(left, POLL_SECONDS))
            # The maximum limits the effect of a pause of all processes.
            waited = min(time.monotonic() - start, POLL_SECONDS)
            received, exited = [], []
            for index, worker in enumerate(self._workers):
                ended = worker.exited  # before reading: then all that it sent has arrived
                if worker.channel in ready or ended:
                    messages, closed = _read_all(worker.channel)
                    received += [(index, message) for message in messages]
                    exited += [index] if closed or ended else []
            for _, message in received:
                if isinstance(message, WorkerFailure):
                    raise message.error()
            for index in exited:
                self._restart(index)
            if self._watchdog is not None and (hanging := self._watchdog.hanging(waited)) is not None:
                raise self._workers[hanging].hang_error(
                    "has been in one call of its environments", self._watchdog.timeout
                )
            if received or exited or left == 0:
                return received

    def _start(self, index: int) -> WorkerProcess:
        if self._watchdog is not None:
            self._watchdog.reset(index)
        name = f"worker process {{pid}} (number {index})"
        worker = WorkerProcess("pgx.distributed.worker_pool:run_target", name, self._descriptors)
        worker.send(index)
        worker.send_by_value(self.target)  # it may contain a rule of a script
        return worker

    def _restart(self, index: int) -> None:
        worker = self._workers[index]
        reason = f"{worker.name} {worker.exit_reason()}"
        if self.restarts == self.max_restarts:
            raise WorkersLost(f"{reason}; no restarts left, runner.max_restarts={self.max_restarts}")
        worker.release()
        self.restarts += 1
        self._workers[index] = self._start(index)
        self.restarted.append(index)

    def close(self) -> None:
        """Stop all workers. Can be called repeatedly."""
        self._close()


def _read_all(channel: "Connection[Any, Any]") -> tuple[list[Any], bool]:
    """Return all complete messages of a channel, and whether its other end is closed."""
    messages = []
    try:
        while channel.poll():
            messages.append(channel.recv())
    except (EOFError, OSError):  # OSError: the worker exited within a message
        return messages, True
    return messages, False


def run_target(channel: "Connection[Any, Any]", *descriptors: int) -> None:
    """Run the function that the pool sends, in a worker, and report its exception."""
    torch.set_num_threads(1)
    index: int = channel.recv()
    target: Target = channel.recv()
    try:
        target(index, channel)
    except DISCONNECTED:
        raise
    except Exception as error:
        channel.send(WorkerFailure.of(error))
