"""Actors in processes of this machine."""

import os
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from torch import Tensor

from pgx.core.errors import RunError
from pgx.distributed.shared_memory import ArraySpec, allocate, attach
from pgx.distributed.worker_pool import Watchdog, WorkerPool, attach_call_counts
from pgx.rollouts.actors import (
    Actor,
    ActorSpec,
    CollectCommand,
    CollectResult,
    ResetCommand,
    StreamState,
    Trajectory,
    name_actor,
)
from pgx.rollouts.inference import InferenceChannel, InferenceServer, RemotePolicy
from pgx.rollouts.shared_parameters import SharedParameters, as_tensors, parameter_specs

_POLL_SECONDS = 1.0  # between checks of the inference server, whose failure wakes no one


@dataclass(frozen=True)
class SharedLayout:
    """Descriptors and layouts of the memory that actors share with the learner."""

    parameters: int
    parameter_columns: list[ArraySpec]
    slots: int
    slot_columns: list[list[ArraySpec]]
    channels: list[InferenceChannel] | None  # to the inference server; None: actors choose their actions
    calls: int  # of the watchdog's counters
    actors: int


class LocalActors:
    """Pool of actors in processes, which write trajectories into memory shared with the learner. See `Actors`.

    Args:
        spec: description of an actor.
        count: number of actors.
        max_restarts: total over all actors.
        slots: number of trajectories that fit into the shared memory.
        columns: columns of a trajectory.
        parameters: tensors that determine an agent's actions, by name.
        server: chooses actions in the learner's process; None: actors choose their actions.
    """

    def __init__(
        self,
        spec: ActorSpec,
        count: int,
        max_restarts: int,
        slots: int,
        columns: Sequence[ArraySpec],
        parameters: Mapping[str, Tensor],
        server: InferenceServer | None,
    ) -> None:
        self.count = count
        self._server = server
        memories = [allocate(), allocate()]
        self._close_memory = weakref.finalize(self, _close, memories)
        watchdog = Watchdog(count, spec.envs.worker_timeout)
        layout = SharedLayout(
            memories[0],
            parameter_specs(parameters),
            memories[1],
            [[ArraySpec(f"{slot}.{c.name}", c.shape, c.dtype) for c in columns] for slot in range(slots)],
            None if server is None else server.channels,
            watchdog.memory,
            count,
        )
        self._parameters = SharedParameters(layout.parameters, layout.parameter_columns)
        shared = as_tensors(attach(layout.slots, [column for slot in layout.slot_columns for column in slot]))
        self._slots = [{c.name: shared[f"{slot}.{c.name}"] for c in columns} for slot in range(slots)]
        self._free = deque(range(slots))
        self._requests: deque[tuple[int, int]] = deque()  # (actor, slot), oldest first
        self._results: dict[int, CollectResult] = {}  # by slot
        self._iteration = 0  # of the last reset
        descriptors = [*memories, watchdog.memory] + ([] if server is None else server.descriptors)
        self._workers = WorkerPool(
            partial(run_actor, spec, layout), count, max_restarts, descriptors, watchdog
        )

    @property
    def restarts(self) -> int:
        return self._workers.restarts

    @property
    def pids(self) -> list[int]:
        """Process ids of the actors."""
        return self._workers.pids

    def begin(self, iteration: int, streams: Sequence[StreamState | None]) -> None:
        while self._requests:
            self.take()  # an actor reads commands between trajectories only
        self._iteration = iteration
        for actor, stream in enumerate(streams):
            self._workers.send(actor, ResetCommand(iteration, 0, stream))

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        self._parameters.publish(version, parameters)
        if self._server is not None:
            self._server.publish(version, parameters)

    def request(self, actor: int) -> None:
        slot = self._free.popleft()
        self._requests.append((actor, slot))
        self._workers.send(actor, CollectCommand(slot))

    def finished(self) -> int:
        self._receive(0.0)
        return len(self._results)

    def take(self) -> Trajectory:
        actor, slot = self._requests[0]
        while slot not in self._results:
            self._receive(_POLL_SECONDS)
        self._requests.popleft()
        self._free.append(slot)  # the next request overwrites it
        result = self._results.pop(slot)
        return Trajectory(
            self._slots[slot],
            actor,
            result.version,
            result.episodes,
            result.env_seconds,
            result.policy_seconds,
            result.stream,
            result.after_reset,
        )

    def _receive(self, timeout_s: float) -> None:
        """Receive results, and send unfinished requests again to actors that were restarted."""
        for _, result in self._workers.receive(timeout_s):
            self._results[result.slot] = result
        if self._server is not None and self._server.failure is not None:
            raise self._server.failure
        while self._workers.restarted:
            restarted = self._workers.restarted.pop()
            self._workers.send(restarted, ResetCommand(self._iteration, self._workers.restarts, None))
            for actor, slot in self._requests:
                if actor == restarted and slot not in self._results:
                    self._workers.send(restarted, CollectCommand(slot))

    def close(self) -> None:
        self._workers.close()
        if self._server is not None:
            self._server.close()
        self._close_memory()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def run_actor(spec: ActorSpec, layout: SharedLayout, index: int, channel: "Connection[Any, Any]") -> None:
    """Execute the learner's commands in a process of a `WorkerPool`."""
    first: ResetCommand = channel.recv()
    shared = as_tensors(attach(layout.slots, [column for slot in layout.slot_columns for column in slot]))
    slots = [
        {column.name.partition(".")[2]: shared[column.name] for column in slot}
        for slot in layout.slot_columns
    ]
    parameters = SharedParameters(layout.parameters, layout.parameter_columns)
    remote_policy = None if layout.channels is None else RemotePolicy(layout.channels[index])
    calls = attach_call_counts(layout.calls, layout.actors)[index : index + 1]
    actor = Actor(spec, index, first.generation, parameters, slots, remote_policy, calls)
    try:
        actor.reset(first)
        while True:
            command: ResetCommand | CollectCommand = channel.recv()
            if isinstance(command, ResetCommand):
                actor.reset(command)
            else:
                channel.send(actor.collect(command.slot))
    except RunError as error:
        raise name_actor(error, spec, index) from error.__cause__
    finally:
        actor.collector.envs.close()
