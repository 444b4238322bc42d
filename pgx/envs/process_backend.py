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
from pgx.core.specs import ActionSpec, Continuous, Discrete, ObsSpec, choice_sizes, obs_dtype
from pgx.distributed.shared_memory import ArraySpec, allocate, attach
from pgx.distributed.worker_process import WorkerProcess, WorkerTraceback, stop
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.registry import pickle_env, unpickle_env
from pgx.envs.vector import AnyArray, Signals, Step

# Commands to a worker and its replies: a byte each, followed by a pickled message for RESET and FAILED.
_BEGIN, _STEP, _RESET, _CLOSE = b"b", b"s", b"r", b"c"
_DONE, _FAILED = b".", b"!"

_BUSY_WAIT_SECONDS = 1e-3  # of a worker pinned to a core; longer than a policy takes, shorter than an update


@dataclass(frozen=True)
class _EnvSlice:
    """Settings of a worker, which steps environments first .. first + count - 1 of num_envs."""

    env_id: str
    pickled_env: bytes  # from `pickle_env`
    first: int
    count: int
    num_envs: int
    signals: tuple[str, ...]  # names
    core: int | None  # to which the worker is pinned; None: not pinned


@dataclass(frozen=True)
class Ready:
    """Message of a worker that created its environments."""

    obs: ObsSpec
    action: ActionSpec
    signals: Mapping[str, tuple[int, ...]]  # shape of each, of one environment

    @property
    def signals_width(self) -> int:
        """Number of values of all signals of one environment."""
        return sum(prod(shape) for shape in self.signals.values())


@dataclass(frozen=True)
class _Failure:
    """Message of a worker that failed, with the text of GymnasiumVector's error."""

    problem: str
    traceback: str  # of the environment's exception; empty: there was none


class _SharedRows(NamedTuple):
    """Arrays in memory shared by the parent and all workers, with a row for each environment.

    Workers write the rows of their environments; the parent writes the actions.
    """

    action: AnyArray  # [N, ...] as sampled by the policy
    obs: AnyArray  # [N, ...]
    reward: NDArray[np.float64]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    success: NDArray[np.int8]  # [N] as in VectorEnv; -1: not reported
    masked: NDArray[np.bool_]  # [N] whether an environment of the worker has an action mask
    mask: NDArray[np.bool_]  # [N, K]; K = 0 for continuous actions
    signals: NDArray[np.float64]  # [N, R] all signals, concatenated

    @classmethod
    def attach(
        cls, memory: int, num_envs: int, obs: ObsSpec, action: ActionSpec, signals_width: int
    ) -> "_SharedRows":
        """Map the arrays to the memory of a file descriptor; `signals_width` is R."""
        # float64 holds every float32 and float64, so the worker clips exactly the numbers that were sampled.
        action_dtype = np.float64 if isinstance(action, Continuous) else np.int64
        action_shape = action.shape if isinstance(action, Continuous) else (len(choice_sizes(action)),)
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
            ArraySpec("mask", (num_envs, sum(choice_sizes(action))), np.bool_),
            ArraySpec("signals", (num_envs, signals_width), np.float64),
        ]
        return cls(**attach(memory, specs))


def serve_envs(channel: "Connection[Any, Any]", memory: int) -> None:
    """Create environments in a worker process and execute the parent's commands until it closes them.

    Args:
        channel: to the parent, which first sends an _EnvSlice.
        memory: file descriptor of the shared rows.
    """
    env_slice: _EnvSlice = channel.recv()
    if env_slice.core is not None:
        os.sched_setaffinity(0, {env_slice.core})
    try:
        kwargs = unpickle_env(env_slice.env_id, env_slice.pickled_env)
        envs = GymnasiumVector(env_slice.env_id, env_slice.count, kwargs, env_slice.first, env_slice.signals)
    except UserError as error:
        channel.send(_Failure(str(error), _cause_traceback(error)))
        os.read(
            channel.fileno(), 1
        )  # stay until the parent has read it: it reports an exited worker as crashed
        return
    ready = Ready(envs.obs_spec, envs.action_spec, envs.signal_reader.shapes)
    channel.send(ready)
    if os.read(channel.fileno(), 1) == _BEGIN:  # sent when all workers are ready
        rows = _SharedRows.attach(
            memory, env_slice.num_envs, envs.obs_spec, envs.action_spec, ready.signals_width
        )
        _run_commands(channel, envs, rows, env_slice)
    envs.close()


def _run_commands(
    channel: "Connection[Any, Any]", envs: GymnasiumVector, rows: _SharedRows, env_slice: _EnvSlice
) -> None:
    mine = slice(env_slice.first, env_slice.first + env_slice.count)
    busy_wait_seconds = 0.0 if env_slice.core is None else _BUSY_WAIT_SECONDS
    while (command := _next_command(channel.fileno(), busy_wait_seconds)) in (_STEP, _RESET):
        try:
            if command == _STEP:
                envs.send(rows.action[mine])
                step = envs.receive()
                rows.obs[mine], rows.reward[mine] = step.obs, step.reward
                rows.terminated[mine], rows.truncated[mine] = step.terminated, step.truncated
                rows.success[mine] = -1 if envs.success is None else envs.success
                signals = [values.reshape(envs.num_envs, -1) for values in envs.signals.values()]
                np.concatenate([rows.signals[mine, :0], *signals], axis=1, out=rows.signals[mine])
            else:
                rows.obs[mine] = envs.reset(channel.recv() + env_slice.first)
        except RunError as error:
            os.write(channel.fileno(), _FAILED)
            channel.send(_Failure(str(error), _cause_traceback(error)))
            continue
        rows.masked[mine] = envs.action_mask is not None
        rows.mask[mine] = True if envs.action_mask is None else envs.action_mask
        os.write(channel.fileno(), _DONE)


def _next_command(descriptor: int, busy_wait_seconds: float) -> bytes:
    """Wait for the parent's next command; empty: the parent has exited.

    A worker pinned to a core polls for `busy_wait_seconds` before it blocks, and yields the core to other processes
    meanwhile. With workers that block at once, a step of 16 walkers took a sixth longer (docs/performance.md).
    """
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    until = time.monotonic() + busy_wait_seconds
    while not poller.poll(0) and time.monotonic() < until:
        os.sched_yield()
    return os.read(descriptor, 1)


def _cause_traceback(error: Exception) -> str:
    """Return the traceback of the environment's exception; empty if pgx itself raised the error."""
    return "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""


def _start(env_slice: _EnvSlice, memory: int) -> WorkerProcess:
    first, last = env_slice.first, env_slice.first + env_slice.count - 1
    which = f"environment {first}" if first == last else f"environments {first} to {last}"
    name = f"{env_slice.env_id}: worker process {{pid}} ({which})"
    worker = WorkerProcess("pgx.envs.process_backend:serve_envs", name, [memory])
    worker.send(env_slice)
    return worker


def _request_close(worker: WorkerProcess) -> None:
    worker.send_byte(_CLOSE)


def worker_process_problem(env_id: str, kwargs: dict[str, Any]) -> str | None:
    """Return why worker processes cannot create this environment; None: they can."""
    if not hasattr(os, "memfd_create"):
        return "worker processes need Linux"
    try:
        pickle_env(env_id, kwargs)
    except ValueError as error:
        return str(error)
    return None


class ProcessVector:
    """N environments stepped by W worker processes, with the same results to the bit as GymnasiumVector.

    Each worker steps its environments one after another. Actions and results are in shared memory; no step pickles.

    Args:
        env_id: Gymnasium id.
        num_envs: N.
        kwargs: of the environments' constructor.
        num_workers: W >= 1; at most N are started. It does not change the results.
        timeout: seconds within which a worker must create, reset or step its environments.
        signals: names of the signals to read.

    Raises:
        UserError: the environment cannot be created, or not in a worker process.
        RunError: a worker crashed, or did not answer in time.
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
        problem = worker_process_problem(env_id, kwargs)
        if problem is not None:
            raise UserError(f"env.backend=processes: {problem}")
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
            ready = self._wait_until_ready()
            self.obs_spec, self.action_spec, self._signal_shapes = ready.obs, ready.action, ready.signals
            self._rows = _SharedRows.attach(memory, num_envs, ready.obs, ready.action, ready.signals_width)
            for worker in self._workers:
                worker.send_byte(_BEGIN)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(memory)

    def _wait_until_ready(self) -> Ready:
        """Wait for all workers and return their common message."""
        found: list[Ready] = []
        waited = 0.0
        for worker in self._workers:
            waited = worker.wait(self._timeout, waited, self._workers)
            message = worker.receive()
            if isinstance(message, _Failure):
                raise UserError(message.problem) from _cause(message)
            found.append(message)
        for ready in found:
            if ready != found[0]:
                raise UserError(f"env.id={self.id}: one environment has {found[0]}, another {ready}")
        return found[0]

    def reset(self, seed: int) -> AnyArray:
        assert not self._sent, "reset between send and receive"
        for worker in self._workers:
            worker.send_byte(_RESET)
            worker.send(seed)
        self._wait_until_done()
        return self._rows.obs.copy()

    def send(self, action: AnyArray) -> None:
        assert not self._sent, "two actions sent, none received"
        np.copyto(self._rows.action, action.reshape(self._rows.action.shape), casting="same_kind")
        self._sent = True
        for worker in self._workers:
            worker.send_byte(_STEP)

    def receive(self) -> Step:
        assert self._sent, "nothing was sent"
        self._sent = False
        self._wait_until_done()
        rows = self._rows
        self.success = rows.success.copy() if (rows.success >= 0).any() else None
        self.signals = self._copy_signals()
        return Step(rows.obs.copy(), rows.reward.copy(), rows.terminated.copy(), rows.truncated.copy())

    def _copy_signals(self) -> Signals:
        found, first = dict[str, NDArray[np.float64]](), 0
        for name, shape in self._signal_shapes.items():
            found[name] = self._rows.signals[:, first : first + prod(shape)].reshape(-1, *shape).copy()
            first += prod(shape)
        return found

    def _wait_until_done(self) -> None:
        """Wait for the replies of all workers, and read the action masks.

        Raises:
            RunError: an environment raised (the first, if several did), or a worker crashed or hangs.
        """
        failures: list[_Failure] = []
        waited = 0.0
        for worker in self._workers:
            waited = worker.wait(self._timeout, waited, self._workers)
            if worker.receive_byte() == _FAILED:
                failures.append(worker.receive())
        if failures:
            raise RunError(failures[0].problem) from _cause(failures[0])
        self.action_mask = self._rows.mask.copy() if self._rows.masked.any() else None

    def close(self) -> None:
        self._end()


def _env_slices(
    env_id: str, kwargs: dict[str, Any], num_envs: int, num_workers: int, signals: tuple[str, ...]
) -> list[_EnvSlice]:
    """Divide N environments among W workers; the numbers of environments differ by at most one."""
    bounds = [worker * num_envs // num_workers for worker in range(num_workers + 1)]
    packed = pickle_env(env_id, kwargs)
    pinned = has_one_core_each(num_workers)
    return [
        _EnvSlice(env_id, packed, a, b - a, num_envs, signals, core if pinned else None)
        for core, (a, b) in enumerate(itertools.pairwise(bounds))
    ]


def _cause(failure: _Failure) -> WorkerTraceback | None:
    return WorkerTraceback(failure.traceback) if failure.traceback else None
