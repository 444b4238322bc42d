"""An actor of the run in an actor of Ray's: what stands in shared memory elsewhere goes through the object store."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.core.errors import RunError
from pgx.distributed.worker import Failure, failure
from pgx.rollouts.actor import Actor, ActorPlan, Begin, Done, of_actor
from pgx.rollouts.shared import Column

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
