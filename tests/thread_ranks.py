"""Several ranks in one process, one thread each."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

from pgx.core.ranks import Ranks, RankValue

Result = TypeVar("Result")
TIMEOUT = 60  # seconds that a rank waits for the others


@dataclass(frozen=True)
class ThreadRank:
    """Rank in a thread; ranks wait for each other at a barrier."""

    rank: int
    size: int
    values: list[Any]  # one per rank
    barrier: Barrier

    @property
    def local_size(self) -> int:
        return self.size

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        parts = self.gather((len(rows), [mean.detach() for mean in means]))
        total = sum(count for count, _ in parts)
        sums = zip(
            *([count * mean for mean in means_of_rank] for count, means_of_rank in parts if count),
            strict=True,
        )
        return tuple(torch.stack(terms).sum(0) / total for terms in sums)

    def gather(self, value: RankValue) -> list[RankValue]:
        self.values[self.rank] = value
        self.barrier.wait(TIMEOUT)
        gathered = list(self.values)
        self.barrier.wait(TIMEOUT)
        return gathered


def on_ranks(size: int, job: Callable[[Ranks], Result]) -> list[Result]:
    """Run a job on each of `size` ranks; return the results in the order of ranks."""
    values, barrier = [None] * size, Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: job(ThreadRank(rank, size, values, barrier)), range(size)))
