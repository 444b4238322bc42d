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

_POLL_SECONDS = 1.0  # seconds between looks at the service, which wakes nobody when it fails


class LocalActors:
    """Actors in processes, which write trajectories into memory that the learner sees.

    Args:
        plan: of each.
        count: how many.
        max_restarts: that may be started again, over all of them.
        slots: trajectories that there is room for.
        columns: of a trajectory.
        parameters: what an agent acts with, by name.
        service: answers to observations in the learner's process; None: actors choose their actions.
    """

    def __init__(
        self,
        plan: ActorSpec,
        count: int,
        max_restarts: int,
        slots: int,
        columns: Sequence[ArraySpec],
        parameters: Mapping[str, Tensor],
        service: InferenceServer | None,
    ) -> None:
        self.count = count
        self._service = service
        memories = [allocate(), allocate()]
        self._close_memory = weakref.finalize(self, _close, memories)
        watchdog = Watchdog(count, plan.envs.worker_timeout)
        places = SharedLayout(
            memories[0],
            parameter_specs(parameters),
            memories[1],
            [[ArraySpec(f"{slot}.{c.name}", c.shape, c.dtype) for c in columns] for slot in range(slots)],
            None if service is None else service.channels,
            watchdog.memory,
            count,
        )
        self._parameters = SharedParameters(places.parameters, places.parameter_columns)
        shared = as_tensors(attach(places.slots, [column for slot in places.slot_columns for column in slot]))
        self._slots = [{c.name: shared[f"{slot}.{c.name}"] for c in columns} for slot in range(slots)]
        self._free = deque(range(slots))
        self._requests: deque[tuple[int, int]] = deque()  # (actor, slot), oldest first
        self._done: dict[int, CollectResult] = {}
        self._begin = ResetCommand(0, 0, None)
        inherited = [*memories, watchdog.memory] + ([] if service is None else service.descriptors)
        self._workers = WorkerPool(partial(run_actor, plan, places), count, max_restarts, inherited, watchdog)

    @property
    def restarts(self) -> int:
        return self._workers.restarts

    @property
    def pids(self) -> list[int]:
        """Of the actors' processes."""
        return self._workers.pids

    def begin(self, iteration: int, streams: Sequence[StreamState | None]) -> None:
        while self._requests:
            self.take()  # what is under way is finished first: an actor looks up between trajectories only
        self._begin = ResetCommand(iteration, 0, None)
        for actor, stream in enumerate(streams):
            self._workers.send(actor, ResetCommand(iteration, 0, stream))

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        self._parameters.publish(version, parameters)
        if self._service is not None:
            self._service.publish(version, parameters)

    def request(self, actor: int) -> None:
        slot = self._free.popleft()
        self._requests.append((actor, slot))
        self._workers.send(actor, CollectCommand(slot))

    def finished(self) -> int:
        self._receive(0.0)
        return len(self._done)

    def take(self) -> Trajectory:
        actor, slot = self._requests[0]
        while slot not in self._done:
            self._receive(_POLL_SECONDS)
        self._requests.popleft()
        self._free.append(slot)  # to be written to when the next is ordered
        done = self._done.pop(slot)
        return Trajectory(
            self._slots[slot],
            actor,
            done.version,
            done.episodes,
            done.env_seconds,
            done.policy_seconds,
            done.stream,
            done.begins,
        )

    def _receive(self, timeout_s: float) -> None:
        """Note what is done; have those that take the place of the dead do what these left."""
        for _, done in self._workers.receive(timeout_s):
            self._done[done.slot] = done
        if self._service is not None and self._service.failure is not None:
            raise self._service.failure
        while self._workers.restarted:
            actor = self._workers.restarted.pop()
            self._workers.send(actor, ResetCommand(self._begin.iteration, self._workers.restarts, None))
            for whose, slot in self._requests:
                if whose == actor and slot not in self._done:
                    self._workers.send(actor, CollectCommand(slot))

    def close(self) -> None:
        self._workers.close()
        if self._service is not None:
            self._service.close()
        self._close_memory()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


@dataclass(frozen=True)
class SharedLayout:
    """Where an actor finds what it shares with the learner: descriptors, and what lies behind them."""

    parameters: int
    parameter_columns: list[ArraySpec]
    slots: int
    slot_columns: list[list[ArraySpec]]
    channels: list[InferenceChannel] | None  # where actors ask for actions; None: they choose their own
    calls: int  # see `Watchdog`
    actors: int


def run_actor(plan: ActorSpec, places: SharedLayout, index: int, channel: "Connection[Any, Any]") -> None:
    """Do as the learner says; for `WorkerPool`."""
    begin: ResetCommand = channel.recv()
    shared = as_tensors(attach(places.slots, [column for slot in places.slot_columns for column in slot]))
    slots = [
        {column.name.partition(".")[2]: shared[column.name] for column in slot}
        for slot in places.slot_columns
    ]
    parameters = SharedParameters(places.parameters, places.parameter_columns)
    remote_policy = None if places.channels is None else RemotePolicy(places.channels[index])
    calls = attach_call_counts(places.calls, places.actors)[index : index + 1]
    actor = Actor(plan, index, begin.generation, parameters, slots, remote_policy, calls)
    try:
        actor.begin(begin)
        while True:
            message: ResetCommand | CollectCommand = channel.recv()
            if isinstance(message, ResetCommand):
                actor.begin(message)
            else:
                channel.send(actor.fill(message.slot))
    except RunError as error:
        raise name_actor(error, plan, index) from error.__cause__
    finally:
        actor.collector.envs.close()
