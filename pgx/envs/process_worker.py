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
from typing import Any

import numpy as np

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.distributed.child import end_with_parent, let_the_kernel_end_this, show_when_asked
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.recipe import unpack
from pgx.envs.shared_rows import SharedRows, attach

# What the parent asks for, and what it hears: a byte each, a message after it where one is needed.
BEGIN, STEP, RESET, CLOSE = b"b", b"s", b"r", b"c"
DONE, FAILED = b".", b"!"

AWAKE = 1e-3  # seconds that a worker with a core of its own waits awake; a policy answers sooner, an update does not


@dataclass(frozen=True)
class Share:
    """What a worker is told once: environments first .. first + count - 1 of num_envs."""

    env_id: str
    recipe: bytes  # from `pack`
    first: int
    count: int
    num_envs: int
    readings: tuple[str, ...]  # of each environment beside its steps
    tied: bool  # to the thread that started it, by the kernel: for one that lasts as long as its process
    core: int | None  # that the worker stays on; None: it goes where there is room


@dataclass(frozen=True)
class Ready:
    """The share's environments stand."""

    obs: ObsSpec
    action: ActionSpec
    readings: Mapping[str, tuple[int, ...]]  # shape of each, of one environment

    @property
    def width(self) -> int:
        """Numbers of all readings of one environment."""
        return sum(prod(shape) for shape in self.readings.values())


@dataclass(frozen=True)
class Failure:
    """What went wrong, in the words of GymnasiumVector, and where an environment raised; empty: none did."""

    problem: str
    traceback: str


def serve(channel: "Connection[Any, Any]", lifeline: int, memory: int, shows: int) -> None:
    """Make a share of the environments and do as the parent says, until it closes them or is gone.

    Args:
        channel: commands and answers.
        lifeline: end of a pipe that nothing is ever written to; it ends when the parent does.
        memory: descriptor of the shared rows.
        shows: descriptor that it says where it is on, when it is asked.
    """
    show_when_asked(shows)
    end_with_parent(lifeline, [channel.fileno(), memory, shows])
    try:
        share: Share = channel.recv()
        if share.tied:
            let_the_kernel_end_this()
        if share.core is not None:
            os.sched_setaffinity(0, {share.core})
        try:
            envs = _make(share)
        except UserError as error:
            channel.send(Failure(str(error), _trace(error)))
            os.read(channel.fileno(), 1)  # one that ends before it is heard would be taken for one that died
            return
        ready = Ready(envs.obs_spec, envs.action_spec, envs.reader.shapes)
        channel.send(ready)
        if os.read(channel.fileno(), 1) == BEGIN:  # every worker is ready
            rows = attach(memory, share.num_envs, envs.obs_spec, envs.action_spec, ready.width)
            _obey(channel, envs, rows, share)
        envs.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _make(share: Share) -> GymnasiumVector:
    kwargs = unpack(share.env_id, share.recipe)
    return GymnasiumVector(share.env_id, share.count, kwargs, share.first, share.readings)


def _obey(channel: "Connection[Any, Any]", envs: GymnasiumVector, rows: SharedRows, share: Share) -> None:
    mine = slice(share.first, share.first + share.count)
    awake = 0.0 if share.core is None else AWAKE
    while (command := _next_command(channel.fileno(), awake)) in (STEP, RESET):
        try:
            if command == STEP:
                envs.send(rows.action[mine])
                took = envs.receive()
                rows.obs[mine], rows.reward[mine] = took.obs, took.reward
                rows.terminated[mine], rows.truncated[mine] = took.terminated, took.truncated
                rows.success[mine] = -1 if envs.success is None else envs.success
                read = [values.reshape(envs.num_envs, -1) for values in envs.readings.values()]
                np.concatenate([rows.readings[mine, :0], *read], axis=1, out=rows.readings[mine])
            else:
                rows.obs[mine] = envs.reset(channel.recv() + share.first)
        except RunError as error:
            os.write(channel.fileno(), FAILED)
            channel.send(Failure(str(error), _trace(error)))
            continue
        rows.masked[mine] = envs.action_mask is not None
        rows.mask[mine] = True if envs.action_mask is None else envs.action_mask
        os.write(channel.fileno(), DONE)


def _next_command(descriptor: int, awake: float) -> bytes:
    """What the parent asks for; nothing: it is gone.

    A step of 16 walkers took a sixth longer where workers fell asleep between two (docs/performance.md). So a worker
    whose core it is waits awake for so many seconds, and lets whoever else wants the core have it.
    """
    asked = select.poll()
    asked.register(descriptor, select.POLLIN)
    until = time.monotonic() + awake
    while not asked.poll(0) and time.monotonic() < until:
        os.sched_yield()
    return os.read(descriptor, 1)


def _trace(error: Exception) -> str:
    """Of what the environment raised; nothing for an error that is pgx's own."""
    return "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""
