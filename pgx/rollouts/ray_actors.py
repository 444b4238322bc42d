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
from pgx.distributed.child_process import Board
from pgx.distributed.ray_cluster import connect
from pgx.distributed.worker import Failure, failure
from pgx.rollouts.actor import Actor, ActorPlan, Begin, Done, of_actor
from pgx.rollouts.shared import Column
from pgx.rollouts.trajectories import Stream, Trajectory
from pgx.rollouts.workers import error_of

Arrays = Mapping[str, NDArray[Any]]


class Brought(NamedTuple):
    """A trajectory on its way; arrays, which the object store takes without pickling their numbers."""

    arrays: Arrays
    done: Done
    life: int  # as in `Begin`, of the actor that made it


def packed(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def unpacked(arrays: Arrays) -> dict[str, Tensor]:
    """Copies, since the object store's are read-only."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


class BoardParameters:
    """The newest parameters, as an actor reads them; fetched once a version and machine.

    Args:
        board: handle of a `Board`.
    """

    def __init__(self, board: Any) -> None:
        self._board = board
        self._version: int | None = None

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor]) -> int:
        newest: Any = ray.get(self._board.newest.remote())
        version, (reference,) = newest
        if version != self._version:
            for name, tensor in unpacked(ray.get(reference)).items():
                tensors[name].copy_(tensor)
        self._version = int(version)
        return self._version


class RayActor:
    """What Ray starts, and starts again when it dies, with the same arguments.

    Args:
        plan: what the actor is made of.
        columns: of a trajectory.
        index: its number.
        board: name of the `Board`; a handle in the arguments of what it starts again Ray advises against.
    """

    def __init__(self, plan: ActorPlan, columns: Sequence[Column], index: int, board: str) -> None:
        torch.set_num_threads(1)
        self._plan, self._index = plan, index
        handle: Any = ray.get_actor(board)
        self._parameters = BoardParameters(handle)
        self._slot = {column.name: torch.zeros(column.shape, dtype=column.dtype) for column in columns}
        life: Any = ray.get(handle.join.remote(index))
        self._life = int(life)
        self._actor: Actor | None = None
        self._beginning: int | None = None

    def present(self) -> None:
        """Answered when Ray has found room for it."""

    def fill(self, beginning: int, begin: Begin) -> Brought | Failure:
        """A trajectory, after its environments began anew where they have not since the learner last said so.

        Args:
            beginning: counts what the learner said of it.
            begin: the last of that.
        """
        try:
            return self._fill(beginning, begin)
        except RunError as error:
            named = of_actor(error, self._plan, self._index)
            named.__cause__ = error.__cause__
            return failure(named)
        except Exception as error:
            return failure(error)

    def _fill(self, beginning: int, begin: Begin) -> Brought:
        stream = begin.stream
        if self._actor is None:
            unseen = np.zeros(1, np.int64)
            self._actor = Actor(
                self._plan, self._index, self._life, self._parameters, [self._slot], None, unseen
            )
            if self._life > 0:  # what it draws is not what the one that died has drawn
                stream = None
        if beginning != self._beginning:
            self._actor.begin(Begin(begin.iteration, self._life, stream))
            self._beginning = beginning
        done = self._actor.fill(0)
        return Brought(packed(self._slot), done, self._life)


LOOK = 1.0  # seconds between looks at who has died; in between, Ctrl-C is heard


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
        plan: ActorPlan,
        count: int,
        max_restarts: int,
        columns: Sequence[Column],
        address: str | None,
        connect_seconds: float,
    ) -> None:
        self.count = count
        self.restarts = 0
        self.max_restarts = max_restarts
        self._patience = connect_seconds
        self._cpus = plan.envs.num_threads
        self._orders: deque[tuple[int, Any]] = deque()  # (actor, what Ray promised), oldest first
        self._beginning, self._begins = 0, [Begin(0, 0, None)] * count
        self._lives = [0] * count  # that made the last trajectory taken
        self._crowded_since: float | None = None
        self._actors: list[Any] = []
        self._board: Any = None
        self._ours = connect("runner.address", address, connect_seconds, count * self._cpus)
        try:
            # Where the learner is, so that no node but its own takes the board with it.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            name = f"pgx-{uuid.uuid4().hex}"
            board: Any = ray.remote(Board)
            self._board = board.options(num_cpus=0, scheduling_strategy=here, name=name).remote()
            kind: Any = ray.remote(RayActor)
            kind = kind.options(num_cpus=self._cpus, max_restarts=max_restarts, max_task_retries=-1)
            self._actors = [kind.remote(plan, columns, index, name) for index in range(count)]
            self._wait_for_room()
        except BaseException:
            self.close()
            raise

    def _wait_for_room(self) -> None:
        present = [actor.present.remote() for actor in self._actors]
        there, missing = ray.wait(present, num_returns=self.count, timeout=self._patience)
        try:
            ray.get(there)
        except RayError as error:
            raise RunError(f"an actor cannot begin: {_why(error)}") from error
        if missing:
            raise UserError(
                f"runner.workers={self.count}: within runner.connect_seconds={self._patience:g} Ray found room for "
                f"{len(there)}; {self._room()}"
            )

    def _room(self) -> str:
        """What the actors ask for, and what there is, in words."""
        return f"each takes {self._cpus} CPU (env.num_threads), and the cluster has {_cpus():g}"

    def begin(self, iteration: int, streams: Sequence[Stream | None]) -> None:
        while self._orders:
            self.take()  # what is under way is finished first: an actor looks up between trajectories only
        self._beginning += 1
        self._begins = [Begin(iteration, 0, stream) for stream in streams]

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        references = [ray.put(packed(parameters))]
        # Answered before anything is ordered, else what is ordered may begin with older ones.
        self._note_deaths(self._board.publish.remote(version, references))

    def order(self, actor: int) -> None:
        promise = self._actors[actor].fill.remote(self._beginning, self._begins[actor])
        self._orders.append((actor, promise))

    def finished(self) -> int:
        promises = [promise for _, promise in self._orders]
        return len(ray.wait(promises, num_returns=len(promises), timeout=0)[0]) if promises else 0

    def take(self) -> Trajectory:
        actor, promise = self._orders[0]
        while not ray.wait([promise], timeout=LOOK)[0]:
            self._note_deaths(self._board.deaths.remote())
            self._watch_room()
        answer: Brought | Failure = self._answer(promise, f"actor {actor}")
        if isinstance(answer, Failure):
            raise error_of(answer)
        self._orders.popleft()
        arrays, done, life = answer
        # An order whose result was lost with a node is done after what was ordered later: then both are beginnings.
        begins, self._lives[actor] = done.begins or life != self._lives[actor], life
        return Trajectory(
            unpacked(arrays),
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

    def _note_deaths(self, promise: Any) -> None:
        self.restarts = self._answer(promise, "the process that keeps the parameters")
        if self.restarts > self.max_restarts:
            raise WorkersLost(
                f"{self.restarts} actors died; runner.max_restarts={self.max_restarts} are used up"
            )

    def _watch_room(self) -> None:
        """Ray waits for room for an actor whose node is gone, for ever; a run does not."""
        if _cpus() >= self.count * self._cpus:
            self._crowded_since = None
            return
        self._crowded_since = self._crowded_since or time.monotonic()
        if time.monotonic() - self._crowded_since > self._patience:
            raise WorkersLost(
                f"Ray has found no room for {self.count} actors in runner.connect_seconds={self._patience:g}; "
                f"{self._room()}"
            )

    def close(self) -> None:
        if ray.is_initialized():
            for process in [*self._actors, self._board]:
                if process is not None:
                    ray.kill(process)
        self._actors, self._board = [], None
        self._orders.clear()
        if self._ours:
            ray.shutdown()
            self._ours = False


def _cpus() -> float:
    """Of all nodes that are there."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("CPU", 0.0)


def _why(error: RayError) -> str:
    """The sentence of Ray's that says why, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("The actor is dead")), lines[0])
    return said.partition(". ")[0].rstrip(".")
