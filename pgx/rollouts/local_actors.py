"""Actors in processes of this machine."""

import os
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from pgx.rollouts.actor import ActorPlan, Begin, Done, Order, Places, act
from pgx.rollouts.inference import InferenceServer
from pgx.rollouts.shared import Column, SharedParameters, allocate, attach, columns_of
from pgx.rollouts.trajectories import Stream, Trajectory
from pgx.rollouts.watch import Watch
from pgx.rollouts.workers import Workers

LOOK = 1.0  # seconds between looks at the service, which wakes nobody when it fails


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
        plan: ActorPlan,
        count: int,
        max_restarts: int,
        slots: int,
        columns: Sequence[Column],
        parameters: Mapping[str, Tensor],
        service: InferenceServer | None,
    ) -> None:
        self.count = count
        self._service = service
        memories = [allocate(), allocate()]
        self._close_memory = weakref.finalize(self, _close, memories)
        watch = Watch(count, plan.envs.worker_timeout)
        places = Places(
            memories[0],
            columns_of(parameters),
            memories[1],
            [[Column(f"{slot}.{c.name}", c.shape, c.dtype) for c in columns] for slot in range(slots)],
            None if service is None else service.desks,
            watch.memory,
            count,
        )
        self._parameters = SharedParameters(places.parameters, places.parameter_columns)
        shared = attach(places.slots, [column for slot in places.slot_columns for column in slot])
        self._slots = [{c.name: shared[f"{slot}.{c.name}"] for c in columns} for slot in range(slots)]
        self._free = deque(range(slots))
        self._orders: deque[tuple[int, int]] = deque()  # (actor, slot), oldest first
        self._done: dict[int, Done] = {}
        self._begin = Begin(0, 0, None)
        inherited = [*memories, watch.memory] + ([] if service is None else service.descriptors)
        self._workers = Workers(partial(act, plan, places), count, max_restarts, inherited, watch)

    @property
    def restarts(self) -> int:
        return self._workers.restarts

    @property
    def pids(self) -> list[int]:
        """Of the actors' processes."""
        return self._workers.pids

    def begin(self, iteration: int, streams: Sequence[Stream | None]) -> None:
        while self._orders:
            self.take()  # what is under way is finished first: an actor looks up between trajectories only
        self._begin = Begin(iteration, 0, None)
        for actor, stream in enumerate(streams):
            self._workers.send(actor, Begin(iteration, 0, stream))

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        self._parameters.publish(version, parameters)
        if self._service is not None:
            self._service.publish(version, parameters)

    def order(self, actor: int) -> None:
        slot = self._free.popleft()
        self._orders.append((actor, slot))
        self._workers.send(actor, Order(slot))

    def finished(self) -> int:
        self._listen(0.0)
        return len(self._done)

    def take(self) -> Trajectory:
        actor, slot = self._orders[0]
        while slot not in self._done:
            self._listen(LOOK)
        self._orders.popleft()
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

    def _listen(self, timeout_s: float) -> None:
        """Note what is done; have those that take the place of the dead do what these left."""
        for _, done in self._workers.receive(timeout_s):
            self._done[done.slot] = done
        if self._service is not None and self._service.failure is not None:
            raise self._service.failure
        while self._workers.revived:
            actor = self._workers.revived.pop()
            self._workers.send(actor, Begin(self._begin.iteration, self._workers.restarts, None))
            for whose, slot in self._orders:
                if whose == actor and slot not in self._done:
                    self._workers.send(actor, Order(slot))

    def close(self) -> None:
        self._workers.close()
        if self._service is not None:
            self._service.close()
        self._close_memory()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
