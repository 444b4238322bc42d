"""Ranks: processes that train one agent together, each with its own environments."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

RankValue = TypeVar("RankValue")


class Ranks(Protocol):
    """All ranks of a run, seen from one of them.

    Each has a share of the environments; parameters, streams and statistics are equal on all. What is asked here all
    ranks ask, in the same order: each waits for the others.
    """

    @property
    def rank(self) -> int:
        """This process's number, from 0; rank 0 writes the run's folder and speaks."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def local_size(self) -> int:
        """How many of them this machine's cores are for."""
        ...

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        """Means over the rows of one rank, made means over the rows of all.

        Args:
            rows: any tensor with a row for each of this rank's, as a rank without rows has it too.
            means: of any shapes, the same on all ranks; of no meaning on a rank without rows.
        """
        ...

    def gather(self, own: RankValue) -> list[RankValue]:
        """Return the values of all ranks, in order of rank; tensors are on the CPU."""
        ...


@dataclass(frozen=True)
class SingleProcess:
    """One process, which has all environments."""

    rank: ClassVar[int] = 0
    size: ClassVar[int] = 1
    local_size: ClassVar[int] = 1

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        return means

    def gather(self, own: RankValue) -> list[RankValue]:
        return [own]


SINGLE_PROCESS = SingleProcess()


@dataclass(frozen=True)
class Shard:
    """Where rows of this rank stand among those of all ranks."""

    ranks: Ranks
    total: int  # rows of the batch, over all ranks
    number: Tensor  # [B] int64 of each row here, where one process with all environments would have it

    def rows(self, index: Tensor) -> "Shard":
        """Some of the rows; index [b] int64."""
        return replace(self, number=self.number[index.cpu()])

    def own(self, numbers: Tensor) -> Tensor:
        """Those of the numbered rows that are here, as indices of them, in the given order; numbers [b] int64."""
        place = torch.full((self.total,), -1)
        place[self.number] = torch.arange(len(self.number))
        found = place[numbers]
        return found[found >= 0]

    def gathered(self, columns: Sequence[Tensor]) -> list[Tensor]:
        """Columns [B] of the rows here with those of all ranks, in the order of one process."""
        device = columns[0].device
        parts = self.ranks.gather((self.number, [column.detach().cpu() for column in columns]))
        order = torch.cat([number for number, _ in parts]).argsort()
        whole = zip(*(own for _, own in parts), strict=True)
        return [torch.cat(column)[order].to(device) for column in whole]


def share_of(ranks: Ranks, valid: Tensor) -> Shard | None:
    """Where the valid rows [T, N] of this rank stand among those of all; None where there is but one rank."""
    if ranks.size == 1:
        return None
    masks = ranks.gather(valid.cpu())
    whole = torch.cat(masks, 1)
    number = (whole.flatten().cumsum(0) - 1).view(whole.shape)
    own = torch.split(number, [mask.shape[1] for mask in masks], 1)[ranks.rank]
    return Shard(ranks, int(whole.sum()), own[masks[ranks.rank]])
