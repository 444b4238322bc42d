"""Gymnasium environments in worker processes, for those that EnvPool does not have."""

import itertools
import os
import threading
import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.distributed.cores import one_each
from pgx.distributed.parent import WorkerTraceback
from pgx.envs.process_handle import WorkerProcess, end
from pgx.envs.process_worker import BEGIN, RESET, STEP, Failure, Ready, Share
from pgx.envs.readings import Readings
from pgx.envs.recipe import pack
from pgx.envs.shared_rows import allocate, attach
from pgx.envs.vector import Array, Step


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
        readings: what is read of each environment beside its steps, see pgx/envs/readings.py.

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
