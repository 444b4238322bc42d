"""The parent's side of one worker process: starting it, telling it, noticing that it died or hangs, ending it.

Gymnasium environments in worker processes, for those that EnvPool does not have.
"""

import itertools
import os
import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgx.core.cpu import has_one_core_each
from pgx.core.errors import RunError, UserError
from pgx.distributed.shared_memory import allocate
from pgx.distributed.worker_process import WorkerProcess, WorkerTraceback, stop
from pgx.envs.pickling import pickle_env
from pgx.envs.process_worker import BEGIN, CLOSE, FAILED, RESET, STEP, EnvSlice, Failure, Ready, SharedRows
from pgx.envs.signals import Signals
from pgx.envs.vector import Array, Step


def _start(env_slice: EnvSlice, memory: int) -> WorkerProcess:
    """Start the process that steps a share of the environments."""
    first, last = env_slice.first, env_slice.first + env_slice.count - 1
    which = f"environment {first}" if first == last else f"environments {first} to {last}"
    name = f"{env_slice.env_id}: worker process {{pid}} ({which})"
    worker = WorkerProcess("pgx.envs.process_worker:serve", name, [memory])
    worker.send(env_slice)
    return worker


def _request_close(worker: WorkerProcess) -> None:
    worker.send_byte(CLOSE)


def unsupported_reason(env_id: str, kwargs: dict[str, Any]) -> str | None:
    """Why workers cannot make this environment; None when they can."""
    if not hasattr(os, "memfd_create"):
        return "worker processes need Linux"
    try:
        pickle_env(env_id, kwargs)
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
        readings: what is read of each environment beside its steps, see pgx/envs/results.py.

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
        signals: Sequence[str] = (),
    ) -> None:
        refusal = unsupported_reason(env_id, kwargs)
        if refusal is not None:
            raise UserError(f"env.backend=processes: {refusal}")
        self.id = env_id
        self.num_envs = num_envs
        self.action_mask: NDArray[np.bool_] | None = None
        self.success: NDArray[np.int8] | None = None
        self.signals: Signals = {}
        self._sent = False
        self._workers: list[WorkerProcess] = []
        self._timeout = timeout
        memory = allocate()
        # Also stops the workers of an object that is garbage-collected or still open at exit.
        self._end = weakref.finalize(self, stop, self._workers, _request_close)
        try:
            for env_slice in _env_slices(
                env_id, kwargs, num_envs, min(num_workers, num_envs), tuple(signals)
            ):
                self._workers.append(_start(env_slice, memory))
            ready = self._ready()
            self.obs_spec, self.action_spec, self._signal_shapes = ready.obs, ready.action, ready.signals
            self._rows = SharedRows.attach(memory, num_envs, ready.obs, ready.action, ready.width)
            for worker in self._workers:
                worker.send_byte(BEGIN)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(memory)

    def _ready(self) -> Ready:
        """What every worker says of its environments, when all are ready."""
        found: list[Ready] = []
        waited = 0.0
        for worker in self._workers:
            waited = worker.wait(self._timeout, waited, self._workers)
            answer = worker.receive()
            if isinstance(answer, Failure):
                raise UserError(answer.problem) from _cause(answer)
            found.append(answer)
        for ready in found:
            if ready != found[0]:
                raise UserError(f"env.id={self.id}: one environment has {found[0]}, another {ready}")
        return found[0]

    def reset(self, seed: int) -> Array:
        assert not self._sent, "reset between send and receive"
        for worker in self._workers:
            worker.send_byte(RESET)
            worker.send(seed)
        self._gather()
        return self._rows.obs.copy()

    def send(self, action: Array) -> None:
        assert not self._sent, "two actions sent, none received"
        np.copyto(self._rows.action, action.reshape(self._rows.action.shape), casting="same_kind")
        self._sent = True
        for worker in self._workers:
            worker.send_byte(STEP)

    def receive(self) -> Step:
        assert self._sent, "nothing was sent"
        self._sent = False
        self._gather()
        rows = self._rows
        self.success = rows.success.copy() if (rows.success >= 0).any() else None
        self.signals = self._read()
        return Step(rows.obs.copy(), rows.reward.copy(), rows.terminated.copy(), rows.truncated.copy())

    def _read(self) -> Signals:
        """The readings of all environments, in arrays of their own."""
        found, first = dict[str, NDArray[np.float64]](), 0
        for name, shape in self._signal_shapes.items():
            found[name] = self._rows.signals[:, first : first + prod(shape)].reshape(-1, *shape).copy()
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
            waited = worker.wait(self._timeout, waited, self._workers)
            if worker.receive_byte() == FAILED:
                failures.append(worker.receive())
        if failures:
            raise RunError(failures[0].problem) from _cause(failures[0])
        self.action_mask = self._rows.mask.copy() if self._rows.masked.any() else None

    def close(self) -> None:
        self._end()


def _env_slices(
    env_id: str, kwargs: dict[str, Any], num_envs: int, num_workers: int, signals: tuple[str, ...]
) -> list[EnvSlice]:
    """W shares of N environments, whose sizes differ by one at most."""
    bounds = [worker * num_envs // num_workers for worker in range(num_workers + 1)]
    packed = pickle_env(env_id, kwargs)
    pinned = has_one_core_each(num_workers)
    return [
        EnvSlice(env_id, packed, a, b - a, num_envs, signals, core if pinned else None)
        for core, (a, b) in enumerate(itertools.pairwise(bounds))
    ]


def _cause(failure: Failure) -> WorkerTraceback | None:
    return WorkerTraceback(failure.traceback) if failure.traceback else None
