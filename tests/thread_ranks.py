"""Several ranks in one process, each in a thread of its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

from pgx.core.ranks import Ranks, RankValue

Result = TypeVar("Result")
PATIENCE = 60  # seconds that a rank waits for one that failed


@dataclass(frozen=True)
class ThreadRank:
    """One of several ranks that wait for each other at a barrier."""

    rank: int
    size: int
    given: list[Any]  # by each rank
    barrier: Barrier

    @property
    def local_size(self) -> int:
        return self.size

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        parts = self.gather((len(rows), [mean.detach() for mean in means]))
        total = sum(count for count, _ in parts)
        sums = zip(*([count * mean for mean in own] for count, own in parts if count), strict=True)
        return tuple(torch.stack(terms).sum(0) / total for terms in sums)

    def gather(self, value: RankValue) -> list[RankValue]:
        self.given[self.rank] = value
        self.barrier.wait(PATIENCE)
        everything = list(self.given)
        self.barrier.wait(PATIENCE)
        return everything


def on_ranks(size: int, job: Callable[[Ranks], Result]) -> list[Result]:
    """Return what the job returns on each of `size` ranks, in their order."""
    given, barrier = [None] * size, Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: job(ThreadRank(rank, size, given, barrier)), range(size)))
