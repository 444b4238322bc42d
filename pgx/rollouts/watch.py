"""Calls of environments in workers, which may never return, seen from the process that waits for the workers."""

import os
import weakref

import numpy as np
import torch
from numpy.typing import NDArray

from pgx.core.specs import ActionSpec, ObsSpec
from pgx.envs.make import EnvsPlan
from pgx.envs.vector import Array, Step, VectorEnv
from pgx.rollouts.shared import Column, allocate, attach

Calls = NDArray[np.int64]  # [W] of each worker: odd while it is in a call


def counters(memory: int, workers: int) -> Calls:
    """Those of all workers, which every process sees."""
    calls: Calls = attach(memory, [Column("calls", (workers,), torch.int64)])["calls"].numpy()
    return calls


class Watch:
    """Which worker has been in one call of its environments for too long.

    Args:
        workers: how many.
        timeout: seconds for a call.
    """

    def __init__(self, workers: int, timeout: float) -> None:
        self.timeout = timeout
        self.memory = allocate()
        weakref.finalize(self, os.close, self.memory)
        self._calls = counters(self.memory, workers)
        self._last = self._calls.copy()
        self._waited = np.zeros(workers)

    def begin(self, worker: int) -> None:
        """It is started, perhaps in the place of one that died in a call."""
        self._calls[worker] = self._last[worker] = 0

    def stuck(self, seconds: float) -> int | None:
        """The first that is stuck, when so many more seconds were waited; those that nobody waits do not count."""
        same = (self._calls == self._last) & (self._calls % 2 == 1)
        self._last = self._calls.copy()
        self._waited = np.where(same, self._waited + seconds, 0.0)
        late = np.flatnonzero(self._waited >= self.timeout)
        return int(late[0]) if late.size else None


def make_watched(plan: EnvsPlan, calls: Calls) -> VectorEnv:
    """Environments of a worker, whose every call is counted, the first being that which makes them.

    Args:
        plan: of the environments.
        calls: the worker's own counter, [1].
    """
    calls += 1
    envs = plan.make()
    calls += 1
    # Those in processes of their own are watched from here, by the same bound.
    return envs if plan.choice.name == "processes" else Watched(envs, calls)


class Watched:
    """Environments whose calls are counted."""

    def __init__(self, envs: VectorEnv, calls: Calls) -> None:
        self._envs = envs
        self._calls = calls

    @property
    def id(self) -> str:
        return self._envs.id

    @property
    def backend(self) -> str:
        return self._envs.backend

    @property
    def num_envs(self) -> int:
        return self._envs.num_envs

    @property
    def obs_spec(self) -> ObsSpec:
        return self._envs.obs_spec

    @property
    def action_spec(self) -> ActionSpec:
        return self._envs.action_spec

    @property
    def action_mask(self) -> NDArray[np.bool_] | None:
        return self._envs.action_mask

    @property
    def success(self) -> NDArray[np.int8] | None:
        return self._envs.success

    def reset(self, seed: int) -> Array:
        self._calls += 1
        obs = self._envs.reset(seed)
        self._calls += 1
        return obs

    def send(self, action: Array) -> None:
        self._calls += 1
        self._envs.send(action)
        self._calls += 1

    def receive(self) -> Step:
        self._calls += 1
        step = self._envs.receive()
        self._calls += 1
        return step

    def close(self) -> None:
        self._envs.close()
