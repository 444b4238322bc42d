"""Ranks: processes that train one agent together, each with its own environments."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

RankValue = TypeVar("RankValue")


class Ranks(Protocol):
    """The ranks of a run, as one of them sees them.

    Each rank has the same number of environments. Parameters, random streams and statistics are equal on all ranks.
    All ranks must call the methods in the same order, since each call waits for the other ranks.
    """

    @property
    def rank(self) -> int:
        """Number of this process, from 0. Rank 0 writes the run's folder and prints."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def local_size(self) -> int:
        """Number of ranks on this machine."""
        ...

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        """Turn means over the rows of this rank into means over the rows of all ranks.

        Args:
            rows: any tensor whose length is the number of rows of this rank; may be empty.
            means: tensors of the same shapes on all ranks; ignored on a rank without rows.
        """
        ...

    def gather(self, value: RankValue) -> list[RankValue]:
        """Return the values of all ranks, in order of rank; tensors are on the CPU."""
        ...


@dataclass(frozen=True)
class SingleProcess:
    """Ranks of a run with one process, which has all environments."""

    rank: ClassVar[int] = 0
    size: ClassVar[int] = 1
    local_size: ClassVar[int] = 1

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        return means

    def gather(self, value: RankValue) -> list[RankValue]:
        return [value]


SINGLE_PROCESS = SingleProcess()


@dataclass(frozen=True)
class Shard:
    """Positions of this rank's rows in the batch that one process with all environments would have."""

    ranks: Ranks
    total: int  # rows of the batch, over all ranks
    position: Tensor  # [B] int64, of each row of this rank

    def rows(self, index: Tensor) -> "Shard":
        """Return the shard of some of the rows; index [b] int64."""
        return replace(self, position=self.position[index.cpu()])

    def local_rows(self, positions: Tensor) -> Tensor:
        """Return the indices of this rank's rows that are among the positions [b] int64, in their order."""
        index = torch.full((self.total,), -1)
        index[self.position] = torch.arange(len(self.position))
        found = index[positions]
        return found[found >= 0]

    def gather(self, columns: Sequence[Tensor]) -> list[Tensor]:
        """Return columns [B] of this rank joined with those of all ranks, in the order of one process."""
        device = columns[0].device
        parts = self.ranks.gather((self.position, [column.detach().cpu() for column in columns]))
        order = torch.cat([position for position, _ in parts]).argsort()
        by_column = zip(*(values for _, values in parts), strict=True)
        return [torch.cat(column)[order].to(device) for column in by_column]


def shard_of(ranks: Ranks, valid: Tensor) -> Shard | None:
    """Return the shard of the valid rows [T, N] of this rank, or None if there is one rank."""
    if ranks.size == 1:
        return None
    masks = ranks.gather(valid.cpu())
    all_valid = torch.cat(masks, 1)
    position = (all_valid.flatten().cumsum(0) - 1).view(all_valid.shape)
    local = torch.split(position, [mask.shape[1] for mask in masks], 1)[ranks.rank]
    return Shard(ranks, int(all_valid.sum()), local[masks[ranks.rank]])
