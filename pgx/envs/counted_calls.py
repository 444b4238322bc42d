"""Environments whose calls are counted, so that the parent of a worker notices a call that never returns."""

import numpy as np
from numpy.typing import NDArray

from pgx.core.specs import ActionSpec, ObsSpec
from pgx.distributed.worker_pool import CallCounts
from pgx.envs.make import EnvSpec
from pgx.envs.vector import Array, Step, VectorEnv


def make_counted(plan: EnvSpec, calls: CallCounts) -> VectorEnv:
    """Environments of a worker, whose every call is counted, the first being that which makes them.

    Args:
        plan: of the environments.
        calls: the worker's own counter, [1].
    """
    calls += 1
    envs = plan.make()
    calls += 1
    # Those in processes of their own are watched from here, by the same bound.
    return envs if plan.choice.name == "processes" else CountedCalls(envs, calls)


class CountedCalls:
    """Environments whose calls are counted."""

    def __init__(self, envs: VectorEnv, calls: CallCounts) -> None:
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
