"""The parent's side of one worker process: starting it, telling it, noticing that it died or hangs, ending it.

Gymnasium environments in worker processes, for those that EnvPool does not have.
"""

import itertools
import os
import select
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.distributed.child_process import LOOK, WorkerTraceback, ending, reap, start
from pgx.distributed.cores import one_each
from pgx.distributed.stuck import hung
from pgx.envs.answers import Readings
from pgx.envs.process_worker import BEGIN, CLOSE, FAILED, RESET, STEP, Failure, Ready, Share
from pgx.envs.recipe import pack
from pgx.envs.shared_rows import allocate, attach
from pgx.envs.vector import Array, Step


class WorkerProcess:
    """A process that steps its share of the environments.

    A command is one byte on a socket, whose reader sleeps until it comes: of the ways to wake a process (socket, pipe,
    semaphore, eventfd) none was measurably better, all took 60 to 100 us for two workers and back, and this one
    tells of the other's death as well. Waiting awake would take a core from a worker.

    Args:
        share: which environments.
        lifeline: read end of a pipe of which this process alone has the other end.
        memory: descriptor of the shared rows.
        shown, shows: ends of a pipe for reading and writing, on which it says where it is when it hangs.
        timeout: seconds that it is waited for.
    """

    def __init__(
        self, share: Share, lifeline: int, memory: int, shown: int, shows: int, timeout: float
    ) -> None:
        self.share = share
        self.timeout = timeout
        self._shown = shown
        self.process, self.channel = start("pgx.envs.process_worker", [lifeline, memory, shows])
        self._answers = select.poll()
        self._answers.register(self.channel.fileno(), select.POLLIN)
        self.tell(share)

    def __str__(self) -> str:
        first, last = self.share.first, self.share.first + self.share.count - 1
        which = f"environment {first}" if first == last else f"environments {first} to {last}"
        return f"worker process {self.process.pid} ({which})"

    def command(self, byte: bytes) -> None:
        """One byte; what is told to the dead is noticed by whoever waits for the answer."""
        with suppress(BrokenPipeError, ConnectionResetError):
            os.write(self.channel.fileno(), byte)

    def tell(self, message: object) -> None:
        """An object; as `command`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.channel.send(message)

    def wait(self, others: Sequence["WorkerProcess"], waited: float) -> float:
        """Until it has something to say.

        Time is counted in looks that found nothing: of a machine that slept, or of processes that were all stopped for
        a while, no more than one look is held against a worker.

        Args:
            others: asked at the same moment, and watched as well.
            waited: seconds that others were waited for since then.

        Returns:
            Seconds, with those that this one was waited for.

        Raises:
            RunError: it, or one of the others, has died; or the time is over and it has been killed.
        """
        look = min(LOOK, self.timeout)
        while not self._answers.poll(look * 1000):
            for worker in others:
                if worker.process.poll() is not None:
                    raise worker.death()
            waited += look
            if waited >= self.timeout:
                what = f"{self.share.env_id}: {self} has not answered"
                raise hung(self.process, self._shown, what, self.timeout)
        return waited

    def answer(self) -> Failure | None:
        """What a command led to, when it has been waited for; None: what was asked for."""
        try:
            byte = os.read(self.channel.fileno(), 1)
            if byte == FAILED:
                failure: Failure = self.channel.recv()
                return failure
        except (EOFError, ConnectionResetError):
            byte = b""
        if not byte:
            raise self.death()
        return None

    def hear(self) -> Any:
        """The object that it sent, when it has been waited for."""
        try:
            return self.channel.recv()
        except (EOFError, ConnectionResetError):
            raise self.death() from None

    def death(self) -> RunError:
        """How it came to its end, which its silence told of."""
        return RunError(f"{self.share.env_id}: {self} {ending(self.process)}")


def end(workers: Sequence[WorkerProcess], descriptors: Sequence[int], owner: int) -> None:
    """Close their environments; kill those that take too long.

    Args:
        workers: all of them.
        descriptors: what this process has open for them, the lifeline's write end among it.
        owner: id of the process that started them; nothing happens in a fork of it.
    """
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.command(CLOSE)
    reap([worker.process for worker in workers])
    for worker in workers:
        worker.channel.close()
    for descriptor in descriptors:
        os.close(descriptor)


def why_not(env_id: str, kwargs: dict[str, Any]) -> str | None:
    """Why workers cannot make this environment; None when they can."""
    if not hasattr(os, "memfd_create"):
        return "worker processes need Linux"
    try:
        pack(env_id, kwargs)
    except ValueError as error:
        return str(error)
    return None


class ProcessVector:
    """N environments stepped by W processes, each its share one after another; the bits are GymnasiumVector's.

    Actions and what they lead to stand in memory that all see; nothing is pickled from step to step.

    Args:
        env_id: as Gymnasium takes it.
        num_envs: N.
        kwargs: of the constructor.
        num_workers: at least 1; of more than N, N are started. Their number does not change a bit of the results.
        timeout: seconds for all workers to be made, to reset or to step.
        readings: what is read of each environment beside its steps, see pgx/envs/answers.py.

    Raises:
        UserError: the environment cannot be made, or not in a worker.
        RunError: a worker died, or did not answer in time.
    """

    backend = "processes"

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        kwargs: dict[str, Any],
        num_workers: int,
        timeout: float,
        readings: Sequence[str] = (),
    ) -> None:
        refusal = why_not(env_id, kwargs)
        if refusal is not None:
            raise UserError(f"env.backend=processes: {refusal}")
        self.id = env_id
        self.num_envs = num_envs
        self.action_mask: NDArray[np.bool_] | None = None
        self.success: NDArray[np.int8] | None = None
        self.readings: Readings = {}
        self._sent = False
        self._workers: list[WorkerProcess] = []
        (theirs, lifeline), (shown, shows) = os.pipe(), os.pipe()
        memory = allocate()
        # What is dropped without being closed, and what is left when Python ends, is closed too.
        self._end = weakref.finalize(self, end, self._workers, [lifeline, shown], os.getpid())
        try:
            for share in _shares(env_id, kwargs, num_envs, min(num_workers, num_envs), tuple(readings)):
                self._workers.append(WorkerProcess(share, theirs, memory, shown, shows, timeout))
            ready = self._ready()
            self.obs_spec, self.action_spec, self._reading_shapes = ready.obs, ready.action, ready.readings
            self._rows = attach(memory, num_envs, ready.obs, ready.action, ready.width)
            for worker in self._workers:
                worker.command(BEGIN)
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in (theirs, shows, memory):
                os.close(descriptor)

    def _ready(self) -> Ready:
        """What every worker says of its environments, when all are ready."""
        found: list[Ready] = []
        waited = 0.0
        for worker in self._workers:
            waited = worker.wait(self._workers, waited)
            heard = worker.hear()
            if isinstance(heard, Failure):
                raise UserError(heard.problem) from _cause(heard)
            found.append(heard)
        for ready in found:
            if ready != found[0]:
                raise UserError(f"env.id={self.id}: one environment has {found[0]}, another {ready}")
        return found[0]

    def reset(self, seed: int) -> Array:
        assert not self._sent, "reset between send and receive"
        for worker in self._workers:
            worker.command(RESET)
            worker.tell(seed)
        self._gather()
        return self._rows.obs.copy()

    def send(self, action: Array) -> None:
        assert not self._sent, "two actions sent, none received"
        np.copyto(self._rows.action, action.reshape(self._rows.action.shape), casting="same_kind")
        self._sent = True
        for worker in self._workers:
            worker.command(STEP)

    def receive(self) -> Step:
        assert self._sent, "nothing was sent"
        self._sent = False
        self._gather()
        rows = self._rows
        self.success = rows.success.copy() if (rows.success >= 0).any() else None
        self.readings = self._read()
        return Step(rows.obs.copy(), rows.reward.copy(), rows.terminated.copy(), rows.truncated.copy())

    def _read(self) -> Readings:
        """The readings of all environments, in arrays of their own."""
        found, first = dict[str, NDArray[np.float64]](), 0
        for name, shape in self._reading_shapes.items():
            found[name] = self._rows.readings[:, first : first + prod(shape)].reshape(-1, *shape).copy()
            first += prod(shape)
        return found

    def _gather(self) -> None:
        """Wait for every worker.

        Raises:
            RunError: an environment raised, the first if several did; or a worker died or hangs.
        """
        failures: list[Failure] = []
        waited = 0.0
        for worker in self._workers:
            waited = worker.wait(self._workers, waited)
            failure = worker.answer()
            if failure is not None:
                failures.append(failure)
        if failures:
            raise RunError(failures[0].problem) from _cause(failures[0])
        self.action_mask = self._rows.mask.copy() if self._rows.masked.any() else None

    def close(self) -> None:
        self._end()


def _shares(
    env_id: str, kwargs: dict[str, Any], num_envs: int, num_workers: int, readings: tuple[str, ...]
) -> list[Share]:
    """W shares of N environments, whose sizes differ by one at most."""
    bounds = [worker * num_envs // num_workers for worker in range(num_workers + 1)]
    packed, tied = pack(env_id, kwargs), threading.current_thread() is threading.main_thread()
    stays = one_each(num_workers)
    return [
        Share(env_id, packed, a, b - a, num_envs, readings, tied, core if stays else None)
        for core, (a, b) in enumerate(itertools.pairwise(bounds))
    ]


def _cause(failure: Failure) -> WorkerTraceback | None:
    return WorkerTraceback(failure.traceback) if failure.traceback else None
