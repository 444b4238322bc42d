"""Actors in processes of Ray, on this machine or a cluster. Data goes through Ray's object store."""

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

_POLL_SECONDS = 1.0  # between checks for exited actors; signals such as Ctrl-C are handled in between


class RemoteResult(NamedTuple):
    """Result of a `RayActor`. The object store takes arrays without pickling their numbers."""

    arrays: Arrays  # columns of the trajectory
    result: CollectResult
    generation: int  # of the actor, see `ResetCommand`


def _to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _to_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """Return copies as tensors, since arrays in the object store are read-only."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


class StoredParameters:
    """Reader of the latest parameters, which it fetches once per version. See `ParameterReader`.

    Args:
        parameter_store: handle of a `ParameterStore`.
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
    """Actor in a process of Ray, which restarts it with the same arguments.

    Args:
        spec: description of the actor.
        columns: columns of a trajectory.
        index: number of the actor.
        parameter_store: name of the `ParameterStore`. Ray advises against handles in the arguments of restarted actors.
    """

    def __init__(
        self, spec: ActorSpec, columns: Sequence[ArraySpec], index: int, parameter_store: str
    ) -> None:
        torch.set_num_threads(1)
        self._spec, self._index = spec, index
        handle: Any = ray.get_actor(parameter_store)
        self._parameters = StoredParameters(handle)
        self._slot = {
            column.name: torch.from_numpy(np.zeros(column.shape, column.dtype)) for column in columns
        }
        generation: Any = ray.get(handle.register.remote(index))
        self._generation = int(generation)
        self._actor: Actor | None = None
        self._reset_count: int | None = None

    def ready(self) -> None:
        """Return as soon as Ray has started the actor."""

    def collect(self, reset_count: int, command: ResetCommand) -> RemoteResult | WorkerFailure:
        """Return a trajectory. The environments are reset before it if `reset_count` changed.

        Args:
            reset_count: number of resets that the learner requested so far.
            command: the last of them.
        """
        try:
            return self._collect(reset_count, command)
        except RunError as error:
            named = name_actor(error, self._spec, self._index)
            named.__cause__ = error.__cause__
            return WorkerFailure.of(named)
        except Exception as error:
            return WorkerFailure.of(error)

    def _collect(self, reset_count: int, command: ResetCommand) -> RemoteResult:
        stream = command.stream
        if self._actor is None:
            unwatched = np.zeros(1, np.int64)
            self._actor = Actor(
                self._spec, self._index, self._generation, self._parameters, [self._slot], None, unwatched
            )
            if self._generation > 0:  # a restarted actor uses a new random stream
                stream = None
        if reset_count != self._reset_count:
            self._actor.reset(ResetCommand(command.iteration, self._generation, stream))
            self._reset_count = reset_count
        result = self._actor.collect(0)
        return RemoteResult(_to_arrays(self._slot), result, self._generation)


class RayActors:
    """Pool of actors that Ray places on nodes, watches and restarts. See `Actors`.

    A request is a task, which Ray repeats if its actor exits. Each actor takes as many CPUs of Ray as its environments
    have threads. Ray counts restarts per actor; the run ends when their sum exceeds max_restarts, as with local actors.

    Args:
        spec: description of an actor.
        count: number of actors.
        max_restarts: total over all actors.
        columns: columns of a trajectory.
        address, connect_seconds: see `connect`; connect_seconds also limits the wait for room for all actors.

    Raises:
        UserError: no cluster answers, or it does not have enough CPUs.
    """

    def __init__(
        self,
        spec: ActorSpec,
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
        self._cpus = spec.envs.num_threads
        self._requests: deque[tuple[int, Any]] = deque()  # (actor, reference to its result), oldest first
        self._reset_count, self._resets = 0, [ResetCommand(0, 0, None)] * count
        self._generations = [0] * count  # of the actors that collected the last trajectories taken
        self._short_since: float | None = None
        self._actors: list[Any] = []
        self._store: Any = None
        self._started_ray = connect("runner.address", address, connect_seconds, count * self._cpus)
        try:
            # On the learner's node: the loss of any other node keeps the store.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            name = f"pgx-{uuid.uuid4().hex}"
            parameter_store: Any = ray.remote(ParameterStore)
            self._store = parameter_store.options(num_cpus=0, scheduling_strategy=here, name=name).remote()
            actor_class: Any = ray.remote(RayActor)
            actor_class = actor_class.options(
                num_cpus=self._cpus, max_restarts=max_restarts, max_task_retries=-1
            )
            self._actors = [actor_class.remote(spec, columns, index, name) for index in range(count)]
            self._wait_for_resources()
        except BaseException:
            self.close()
            raise

    def _wait_for_resources(self) -> None:
        references = [actor.ready.remote() for actor in self._actors]
        ready, missing = ray.wait(references, num_returns=self.count, timeout=self._timeout)
        try:
            ray.get(ready)
        except RayError as error:
            raise RunError(f"an actor cannot start: {_reason(error)}") from error
        if missing:
            raise UserError(
                f"runner.workers={self.count}: within runner.connect_seconds={self._timeout:g} Ray found room for "
                f"{len(ready)}; {self._resources()}"
            )

    def _resources(self) -> str:
        """Describe the CPUs that the actors need and that the cluster has."""
        return f"each takes {self._cpus} CPU (env.num_threads), and the cluster has {_cluster_cpus():g}"

    def begin(self, iteration: int, streams: Sequence[StreamState | None]) -> None:
        while self._requests:
            self.take()  # an actor reads commands between trajectories only
        self._reset_count += 1
        self._resets = [ResetCommand(iteration, 0, stream) for stream in streams]

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        references = [ray.put(_to_arrays(parameters))]
        # Wait for the store: a trajectory that is requested earlier could start with older parameters.
        self._count_restarts(self._store.publish.remote(version, references))

    def request(self, actor: int) -> None:
        reference = self._actors[actor].collect.remote(self._reset_count, self._resets[actor])
        self._requests.append((actor, reference))

    def finished(self) -> int:
        references = [reference for _, reference in self._requests]
        return len(ray.wait(references, num_returns=len(references), timeout=0)[0]) if references else 0

    def take(self) -> Trajectory:
        actor, reference = self._requests[0]
        while not ray.wait([reference], timeout=_POLL_SECONDS)[0]:
            self._count_restarts(self._store.restarts.remote())
            self._check_resources()
        answer: RemoteResult | WorkerFailure = self._get(reference, f"actor {actor}")
        if isinstance(answer, WorkerFailure):
            raise answer.error()
        self._requests.popleft()
        arrays, result, generation = answer
        # Ray repeats a task whose result was lost with a node after later tasks of the actor. Both are then preceded
        # by a reset, which the change of the generation shows.
        after_reset = result.after_reset or generation != self._generations[actor]
        self._generations[actor] = generation
        return Trajectory(
            _to_tensors(arrays),
            actor,
            result.version,
            result.episodes,
            result.env_seconds,
            result.policy_seconds,
            np.array(result.stream),  # a copy, since arrays in the object store are read-only
            after_reset,
        )

    def _get(self, reference: Any, owner: str) -> Any:
        """Return the object of a reference.

        Args:
            reference: of Ray.
            owner: its process, for messages.

        Raises:
            WorkersLost: the process is lost.
        """
        try:
            return ray.get(reference)
        except RayError as error:
            limit = f"; runner.max_restarts={self.max_restarts}" if isinstance(error, RayActorError) else ""
            raise WorkersLost(f"{owner} is lost: {_reason(error)}{limit}") from error

    def _count_restarts(self, reference: Any) -> None:
        self.restarts = self._get(reference, "the process that stores the parameters")
        if self.restarts > self.max_restarts:
            raise WorkersLost(
                f"actors exited {self.restarts} times; no restarts left, runner.max_restarts={self.max_restarts}"
            )

    def _check_resources(self) -> None:
        """Limit the wait for room for an actor whose node is lost, since Ray would wait forever."""
        if _cluster_cpus() >= self.count * self._cpus:
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


def _cluster_cpus() -> float:
    """Return the CPUs of all nodes of the cluster."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("CPU", 0.0)


def _reason(error: RayError) -> str:
    """Return the sentence of Ray's message that states the reason, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("The actor is dead")), lines[0])
    return reason.partition(". ")[0].rstrip(".")
