"""The worker's side of the processes backend: one process that steps its share of the environments.

What this file imports every worker imports: no torch.
"""

import os
import select
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, ObsSpec, choices, obs_dtype
from pgx.distributed.shared_memory import ArraySpec, attach
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.pickling import unpickle_env
from pgx.envs.vector import Array

# What the parent asks for, and what it hears: a byte each, a message after it where one is needed.
BEGIN, STEP, RESET, CLOSE = b"b", b"s", b"r", b"c"
DONE, FAILED = b".", b"!"

BUSY_WAIT_SECONDS = 1e-3  # of a worker pinned to a core; longer than a policy takes, shorter than an update


@dataclass(frozen=True)
class EnvSlice:
    """What a worker is told once: environments first .. first + count - 1 of num_envs."""

    env_id: str
    pickled_env: bytes  # from `pickle_env`
    first: int
    count: int
    num_envs: int
    signals: tuple[str, ...]  # of each environment beside its steps
    core: int | None  # that the worker stays on; None: it goes where there is room


@dataclass(frozen=True)
class Ready:
    """The share's environments stand."""

    obs: ObsSpec
    action: ActionSpec
    signals: Mapping[str, tuple[int, ...]]  # shape of each, of one environment

    @property
    def width(self) -> int:
        """Numbers of all readings of one environment."""
        return sum(prod(shape) for shape in self.signals.values())


@dataclass(frozen=True)
class Failure:
    """What went wrong, in the words of GymnasiumVector, and where an environment raised; empty: none did."""

    problem: str
    traceback: str


class SharedRows(NamedTuple):
    """Arrays in memory that the parent and all workers share, a row for each environment.

    Workers write the rows of their environments; the parent writes the actions.
    """

    action: Array  # [N, ...] as the policy sampled them
    obs: Array  # [N, ...]
    reward: NDArray[np.float64]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    success: NDArray[np.int8]  # [N] as in VectorEnv; -1: not reported
    masked: NDArray[np.bool_]  # [N] whether an environment of the worker has an action mask
    mask: NDArray[np.bool_]  # [N, K]; K = 0 for continuous actions
    signals: NDArray[np.float64]  # [N, R] all readings, concatenated

    @classmethod
    def attach(
        cls, memory: int, num_envs: int, obs: ObsSpec, action: ActionSpec, signals: int
    ) -> "SharedRows":
        """Map the arrays; `signals` is R."""
        # float64 holds every float32 and float64, so the worker clips exactly the numbers that were sampled.
        action_dtype = np.float64 if isinstance(action, Continuous) else np.int64
        action_shape = action.shape if isinstance(action, Continuous) else (len(choices(action)),)
        if isinstance(action, Discrete):
            action_shape = ()
        obs_shape = () if isinstance(obs, Discrete) else obs.shape
        specs = [
            ArraySpec("action", (num_envs, *action_shape), action_dtype),
            ArraySpec("obs", (num_envs, *obs_shape), obs_dtype(obs)),
            ArraySpec("reward", (num_envs,), np.float64),
            ArraySpec("terminated", (num_envs,), np.bool_),
            ArraySpec("truncated", (num_envs,), np.bool_),
            ArraySpec("success", (num_envs,), np.int8),
            ArraySpec("masked", (num_envs,), np.bool_),
            ArraySpec("mask", (num_envs, sum(choices(action))), np.bool_),
            ArraySpec("signals", (num_envs, signals), np.float64),
        ]
        return cls(**attach(memory, specs))


def serve(channel: "Connection[Any, Any]", memory: int) -> None:
    """Make a share of the environments and execute the parent's commands until it closes them.

    Args:
        channel: commands and answers.
        memory: descriptor of the shared rows.
    """
    env_slice: EnvSlice = channel.recv()
    if env_slice.core is not None:
        os.sched_setaffinity(0, {env_slice.core})
    try:
        envs = _make(env_slice)
    except UserError as error:
        channel.send(Failure(str(error), _cause_traceback(error)))
        os.read(channel.fileno(), 1)  # exit after the parent has read it, which else reports an early exit
        return
    ready = Ready(envs.obs_spec, envs.action_spec, envs.signal_reader.shapes)
    channel.send(ready)
    if os.read(channel.fileno(), 1) == BEGIN:  # every worker is ready
        rows = SharedRows.attach(memory, env_slice.num_envs, envs.obs_spec, envs.action_spec, ready.width)
        _run_commands(channel, envs, rows, env_slice)
    envs.close()


def _make(env_slice: EnvSlice) -> GymnasiumVector:
    kwargs = unpickle_env(env_slice.env_id, env_slice.pickled_env)
    return GymnasiumVector(env_slice.env_id, env_slice.count, kwargs, env_slice.first, env_slice.signals)


def _run_commands(
    channel: "Connection[Any, Any]", envs: GymnasiumVector, rows: SharedRows, env_slice: EnvSlice
) -> None:
    mine = slice(env_slice.first, env_slice.first + env_slice.count)
    busy_wait_seconds = 0.0 if env_slice.core is None else BUSY_WAIT_SECONDS
    while (command := _next_command(channel.fileno(), busy_wait_seconds)) in (STEP, RESET):
        try:
            if command == STEP:
                envs.send(rows.action[mine])
                took = envs.receive()
                rows.obs[mine], rows.reward[mine] = took.obs, took.reward
                rows.terminated[mine], rows.truncated[mine] = took.terminated, took.truncated
                rows.success[mine] = -1 if envs.success is None else envs.success
                read = [values.reshape(envs.num_envs, -1) for values in envs.signals.values()]
                np.concatenate([rows.signals[mine, :0], *read], axis=1, out=rows.signals[mine])
            else:
                rows.obs[mine] = envs.reset(channel.recv() + env_slice.first)
        except RunError as error:
            os.write(channel.fileno(), FAILED)
            channel.send(Failure(str(error), _cause_traceback(error)))
            continue
        rows.masked[mine] = envs.action_mask is not None
        rows.mask[mine] = True if envs.action_mask is None else envs.action_mask
        os.write(channel.fileno(), DONE)


def _next_command(descriptor: int, busy_wait_seconds: float) -> bytes:
    """What the parent asks for; nothing: it is gone.

    A step of 16 walkers took a sixth longer where workers fell asleep between two (docs/performance.md). So a worker
    whose core it is waits awake for so many seconds, and lets whoever else wants the core have it.
    """
    asked = select.poll()
    asked.register(descriptor, select.POLLIN)
    until = time.monotonic() + busy_wait_seconds
    while not asked.poll(0) and time.monotonic() < until:
        os.sched_yield()
    return os.read(descriptor, 1)


def _cause_traceback(error: Exception) -> str:
    """Of what the environment raised; nothing for an error that is pgx's own."""
    return "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""
