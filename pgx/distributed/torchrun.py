"""Ranks that torchrun started, over torch.distributed."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from pgx.core.agent import Agent
from pgx.core.errors import RunError
from pgx.core.ranks import SINGLE_PROCESS, Ranks, RankValue
from pgx.ops.params import flatten

# For one that is late, in an evaluation on rank 0 say. One that died is noticed at once: its connections end.
_TIMEOUT = timedelta(minutes=30)


class RankLost(RunError):
    """Another rank ended, or does not answer."""


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def join_process_group() -> Ranks:
    """The ranks that this process is one of; alone without torchrun.

    Raises:
        RankLost: the others did not come.
    """
    if not under_torchrun():
        return SINGLE_PROCESS
    local_size, backend = int(os.environ["LOCAL_WORLD_SIZE"]), "gloo"
    if local_size <= torch.cuda.device_count():  # else they share, which gloo can do and nccl cannot
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # from here on device=cuda is this one
        backend = "cpu:gloo,cuda:nccl"
    with _rank_loss_detected():
        dist.init_process_group(backend, timeout=_TIMEOUT)
    return TorchrunContext(dist.get_rank(), dist.get_world_size(), local_size)


def leave_process_group() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def claim_first_failure(message: str) -> bool:
    """Return whether this is the first rank to fail, whose message is reported; True without torchrun.

    Other ranks fail as a consequence. The message is stored in torchrun's shared store for them.
    """
    if not dist.is_initialized():
        return True
    try:
        store = dist.distributed_c10d._get_default_store()
        if store.add("pgx/failures", 1) > 1:
            return False
        store.set("pgx/failure", message)
    except RuntimeError:  # torchrun itself is gone
        return True
    return True


@dataclass(frozen=True)
class TorchrunContext:
    """This process among several. See `Ranks`."""

    rank: int
    size: int
    local_size: int

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        dtype = max((m.dtype for m in means), key=lambda dtype: torch.finfo(dtype).bits)
        flat = torch.cat([m.detach().reshape(-1).to(dtype) for m in means])
        # What is a mean of no rows is NaN, and must count nothing.
        weighted = flat * len(rows) if len(rows) else torch.zeros_like(flat)
        sums = torch.cat([weighted, flat.new_tensor([len(rows)])])
        with _rank_loss_detected():
            dist.all_reduce(sums)
        whole = torch.split(sums[:-1] / sums[-1], [m.numel() for m in means])
        return tuple(part.view(m.shape).to(m.dtype) for part, m in zip(whole, means, strict=True))

    def gather(self, own: RankValue) -> list[RankValue]:
        found: list[RankValue] = [own] * self.size
        with _rank_loss_detected():
            dist.all_gather_object(found, own)
        return found


@contextmanager
def _rank_loss_detected() -> Iterator[None]:
    """Where a rank that is gone makes itself felt.

    Raises:
        RankLost: with the message of the one that failed first, if it left any.
    """
    try:
        yield
    except RuntimeError as error:  # torch's errors of communication are of this kind
        raise RankLost(
            _first_failure() or f"another rank ended or does not answer ({_summary(error)})"
        ) from error


def _first_failure() -> str | None:
    try:
        store = dist.distributed_c10d._get_default_store()
        return store.get("pgx/failure").decode() if store.check(["pgx/failure"]) else None
    except (RuntimeError, ValueError):
        return None


def _summary(error: Exception) -> str:
    """What a library says happened, without the line of its source before it and its advice after it."""
    said = re.sub(r"^\[\S+:\d+\] ", "", str(error).strip()).partition("\n")[0]
    return said.partition(". ")[0] or type(error).__name__


class RankMismatch(RunError):
    """The ranks no longer hold the same parameters, and none of them can be kept."""


def check_agreement(agent: Agent, ranks: Ranks, iteration: int) -> None:
    """Compare the parameters of all ranks: equal numbers follow on equal processors and nowhere else.

    Raises:
        RanksDisagree: they are not the same after the `iteration`th iteration.
    """
    weights = {name: list(getattr(agent, name).parameters()) for name in ("policy", "critic")}
    sums = {name: float(flatten(own).double().sum()) for name, own in weights.items() if own}
    if any(other != sums for other in ranks.gather(sums)):
        raise RankMismatch(
            f"iteration {iteration}: the ranks no longer hold the same parameters, as where they "
            "run on processors of different kinds; the last checkpoint is from before this was seen"
        )
