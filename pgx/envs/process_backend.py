"""Backend `processes`: Gymnasium environments in worker processes.

Workers import this module, which therefore does not import torch.
"""

import itertools
import os
import select
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgx.core.cpu import has_one_core_each
from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, ObsSpec, choices, obs_dtype
from pgx.distributed.shared_memory import ArraySpec, allocate, attach
from pgx.distributed.worker_process import WorkerProcess, WorkerTraceback, stop
from pgx.envs.gymnasium_backend import GymnasiumVector, Signals
from pgx.envs.registry import pickle_env, unpickle_env
from pgx.envs.vector import Array, Step

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


def _start(env_slice: EnvSlice, memory: int) -> WorkerProcess:
    """Start the process that steps a share of the environments."""
    first, last = env_slice.first, env_slice.first + env_slice.count - 1
    which = f"environment {first}" if first == last else f"environments {first} to {last}"
    name = f"{env_slice.env_id}: worker process {{pid}} ({which})"
    worker = WorkerProcess("pgx.envs.process_backend:serve", name, [memory])
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
