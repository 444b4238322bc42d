"""An actor of the run in an actor of Ray's: what stands in shared memory elsewhere goes through the object store.

Actors in processes of Ray's, on this machine or on a cluster's.
"""

import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor

from pgx.core.errors import RunError, UserError, WorkersLost
from pgx.distributed.ray_cluster import ParameterStore, connect
from pgx.distributed.shared_memory import ArraySpec
from pgx.distributed.worker_pool import WorkerFailure
from pgx.rollouts.actors import (
    Actor,
    ActorSpec,
    CollectResult,
    ResetCommand,
    StreamState,
    Trajectory,
    name_actor,
)

Arrays = Mapping[str, NDArray[Any]]


class RemoteResult(NamedTuple):
    """A trajectory on its way; arrays, which the object store takes without pickling their numbers."""

    arrays: Arrays
    done: CollectResult
    generation: int  # as in `ResetCommand`, of the actor that made it


def _to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _to_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """Copies, since the object store's are read-only."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


class StoredParameters:
    """The newest parameters, as an actor reads them; fetched once a version and machine.

    Args:
        board: handle of a `ParameterStore`.
    """

    def __init__(self, parameter_store: Any) -> None:
        self._store = parameter_store
        self._version: int | None = None

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor]) -> int:
        newest: Any = ray.get(self._store.newest.remote())
        version, (reference,) = newest
        if version != self._version:
            for name, tensor in _to_tensors(ray.get(reference)).items():
                tensors[name].copy_(tensor)
        self._version = int(version)
        return self._version


class RayActor:
    """What Ray starts, and starts again when it dies, with the same arguments.

    Args:
        plan: what the actor is made of.
        columns: of a trajectory.
        index: its number.
        board: name of the `ParameterStore`; a handle in the arguments of what it starts again Ray advises against.
    """

    def __init__(
        self, plan: ActorSpec, columns: Sequence[ArraySpec], index: int, parameter_store: str
    ) -> None:
        torch.set_num_threads(1)
        self._plan, self._index = plan, index
        handle: Any = ray.get_actor(parameter_store)
        self._parameters = StoredParameters(handle)
        self._slot = {
            column.name: torch.from_numpy(np.zeros(column.shape, column.dtype)) for column in columns
        }
        generation: Any = ray.get(handle.register.remote(index))
        self._generation = int(generation)
        self._actor: Actor | None = None
        self._beginning: int | None = None

    def ready(self) -> None:
        """Answered when Ray has found room for it."""

    def fill(self, beginning: int, begin: ResetCommand) -> RemoteResult | WorkerFailure:
        """A trajectory, after its environments began anew where they have not since the learner last said so.

        Args:
            beginning: counts what the learner said of it.
            begin: the last of that.
        """
        try:
            return self._fill(beginning, begin)
        except RunError as error:
            named = name_actor(error, self._plan, self._index)
            named.__cause__ = error.__cause__
            return WorkerFailure.of(named)
        except Exception as error:
            return WorkerFailure.of(error)

    def _fill(self, beginning: int, begin: ResetCommand) -> RemoteResult:
        stream = begin.stream
        if self._actor is None:
            unseen = np.zeros(1, np.int64)
            self._actor = Actor(
                self._plan, self._index, self._generation, self._parameters, [self._slot], None, unseen
            )
            if self._generation > 0:  # what it draws is not what the one that died has drawn
                stream = None
        if beginning != self._beginning:
            self._actor.begin(ResetCommand(begin.iteration, self._generation, stream))
            self._beginning = beginning
        done = self._actor.fill(0)
        return RemoteResult(_to_arrays(self._slot), done, self._generation)


_POLL_SECONDS = 1.0  # seconds between looks at who has died; in between, Ctrl-C is heard


class RayActors:
    """Actors that Ray places, watches and starts again; an order is a task, which Ray does again where it has to.

    Each actor is to have as many CPUs of Ray's as its environments have threads. Ray counts restarts for each actor;
    what ends the run is their sum, as with actors of this machine.

    Args:
        plan: of each.
        count: how many.
        max_restarts: that may be started again, over all of them.
        columns: of a trajectory.
        address, connect_seconds: as `connect` takes them; the seconds are also to find room for all actors.

    Raises:
        UserError: no cluster answers, or it has no room.
    """

    def __init__(
        self,
        plan: ActorSpec,
        count: int,
        max_restarts: int,
        columns: Sequence[ArraySpec],
        address: str | None,
        connect_seconds: float,
    ) -> None:
        self.count = count
        self.restarts = 0
        self.max_restarts = max_restarts
        self._timeout = connect_seconds
        self._cpus = plan.envs.num_threads
        self._requests: deque[tuple[int, Any]] = deque()  # (actor, what Ray promised), oldest first
        self._beginning, self._begins = 0, [ResetCommand(0, 0, None)] * count
        self._generations = [0] * count  # that made the last trajectory taken
        self._short_since: float | None = None
        self._actors: list[Any] = []
        self._store: Any = None
        self._started_ray = connect("runner.address", address, connect_seconds, count * self._cpus)
        try:
            # Where the learner is, so that no node but its own takes the board with it.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            name = f"pgx-{uuid.uuid4().hex}"
            parameter_store: Any = ray.remote(ParameterStore)
            self._store = parameter_store.options(num_cpus=0, scheduling_strategy=here, name=name).remote()
            kind: Any = ray.remote(RayActor)
            kind = kind.options(num_cpus=self._cpus, max_restarts=max_restarts, max_task_retries=-1)
            self._actors = [kind.remote(plan, columns, index, name) for index in range(count)]
            self._wait_for_resources()
        except BaseException:
            self.close()
            raise

    def _wait_for_resources(self) -> None:
        ready = [actor.ready.remote() for actor in self._actors]
        there, missing = ray.wait(ready, num_returns=self.count, timeout=self._timeout)
        try:
            ray.get(there)
        except RayError as error:
            raise RunError(f"an actor cannot begin: {_why(error)}") from error
        if missing:
            raise UserError(
                f"runner.workers={self.count}: within runner.connect_seconds={self._timeout:g} Ray found room for "
                f"{len(there)}; {self._resources()}"
            )

    def _resources(self) -> str:
        """What the actors ask for, and what there is, in words."""
        return f"each takes {self._cpus} CPU (env.num_threads), and the cluster has {_cpus():g}"

    def begin(self, iteration: int, streams: Sequence[StreamState | None]) -> None:
        while self._requests:
            self.take()  # what is under way is finished first: an actor looks up between trajectories only
        self._beginning += 1
        self._begins = [ResetCommand(iteration, 0, stream) for stream in streams]

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        references = [ray.put(_to_arrays(parameters))]
        # Answered before anything is ordered, else what is ordered may begin with older ones.
        self._count_restarts(self._store.publish.remote(version, references))

    def request(self, actor: int) -> None:
        promise = self._actors[actor].fill.remote(self._beginning, self._begins[actor])
        self._requests.append((actor, promise))

    def finished(self) -> int:
        promises = [promise for _, promise in self._requests]
        return len(ray.wait(promises, num_returns=len(promises), timeout=0)[0]) if promises else 0

    def take(self) -> Trajectory:
        actor, promise = self._requests[0]
        while not ray.wait([promise], timeout=_POLL_SECONDS)[0]:
            self._count_restarts(self._store.restarts.remote())
            self._check_resources()
        answer: RemoteResult | WorkerFailure = self._answer(promise, f"actor {actor}")
        if isinstance(answer, WorkerFailure):
            raise answer.error()
        self._requests.popleft()
        arrays, done, generation = answer
        # An order whose result was lost with a node is done after what was ordered later: then both are beginnings.
        begins, self._generations[actor] = done.begins or generation != self._generations[actor], generation
        return Trajectory(
            _to_tensors(arrays),
            actor,
            done.version,
            done.episodes,
            done.env_seconds,
            done.policy_seconds,
            np.array(done.stream),  # a copy of its own: the object store's is read-only
            begins,
        )

    def _answer(self, promise: Any, whose: str) -> Any:
        """What Ray has promised.

        Raises:
            WorkersLost: it will not come.
        """
        try:
            return ray.get(promise)
        except RayError as error:
            limit = f"; runner.max_restarts={self.max_restarts}" if isinstance(error, RayActorError) else ""
            raise WorkersLost(f"{whose} is lost: {_why(error)}{limit}") from error

    def _count_restarts(self, promise: Any) -> None:
        self.restarts = self._answer(promise, "the process that keeps the parameters")
        if self.restarts > self.max_restarts:
            raise WorkersLost(
                f"{self.restarts} actors died; runner.max_restarts={self.max_restarts} are used up"
            )

    def _check_resources(self) -> None:
        """Ray waits for room for an actor whose node is gone, for ever; a run does not."""
        if _cpus() >= self.count * self._cpus:
            self._short_since = None
            return
        self._short_since = self._short_since or time.monotonic()
        if time.monotonic() - self._short_since > self._timeout:
            raise WorkersLost(
                f"Ray has found no room for {self.count} actors in runner.connect_seconds={self._timeout:g}; "
                f"{self._resources()}"
            )

    def close(self) -> None:
        if ray.is_initialized():
            for process in [*self._actors, self._store]:
                if process is not None:
                    ray.kill(process)
        self._actors, self._store = [], None
        self._requests.clear()
        if self._started_ray:
            ray.shutdown()
            self._started_ray = False


def _cpus() -> float:
    """Of all nodes that are there."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("CPU", 0.0)


def _why(error: RayError) -> str:
    """The sentence of Ray's that says why, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("The actor is dead")), lines[0])
    return said.partition(". ")[0].rstrip(".")
