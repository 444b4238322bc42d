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

# For a rank that is late, for example because rank 0 evaluates. An exit is noticed at once, as connections close.
_TIMEOUT = timedelta(minutes=30)


class RankLost(RunError):
    """Another rank exited or does not answer."""


def under_torchrun() -> bool:
    """Return whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def join_process_group() -> Ranks:
    """Connect to the other ranks and return the ranks of the run; without torchrun, those of a single process.

    Raises:
        RankLost: another rank did not connect.
    """
    if not under_torchrun():
        return SINGLE_PROCESS
    local_size, backend = int(os.environ["LOCAL_WORLD_SIZE"]), "gloo"
    if local_size <= torch.cuda.device_count():  # NCCL needs one GPU for each rank
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # sets the meaning of device=cuda
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
    except RuntimeError:  # torchrun exited
        return True
    return True


@dataclass(frozen=True)
class TorchrunContext:
    """Ranks that communicate over torch.distributed. See `Ranks`."""

    rank: int
    size: int
    local_size: int

    def mean(self, rows: Tensor, *means: Tensor) -> tuple[Tensor, ...]:
        dtype = max((m.dtype for m in means), key=lambda dtype: torch.finfo(dtype).bits)
        flat = torch.cat([m.detach().reshape(-1).to(dtype) for m in means])
        # The mean of no rows is NaN and must have no weight.
        weighted = flat * len(rows) if len(rows) else torch.zeros_like(flat)
        sums = torch.cat([weighted, flat.new_tensor([len(rows)])])
        with _rank_loss_detected():
            dist.all_reduce(sums)
        whole = torch.split(sums[:-1] / sums[-1], [m.numel() for m in means])
        return tuple(part.view(m.shape).to(m.dtype) for part, m in zip(whole, means, strict=True))

    def gather(self, value: RankValue) -> list[RankValue]:
        values: list[RankValue] = [value] * self.size
        with _rank_loss_detected():
            dist.all_gather_object(values, value)
        return values


@contextmanager
def _rank_loss_detected() -> Iterator[None]:
    """Turn errors of communication into RankLost.

    Raises:
        RankLost: another rank failed; has the message of the first failure if it was stored.
    """
    try:
        yield
    except RuntimeError as error:  # torch raises it for errors of communication
        raise RankLost(
            _first_failure() or f"another rank exited or does not answer ({_summary(error)})"
        ) from error


def _first_failure() -> str | None:
    try:
        store = dist.distributed_c10d._get_default_store()
        return store.get("pgx/failure").decode() if store.check(["pgx/failure"]) else None
    except (RuntimeError, ValueError):
        return None


def _summary(error: Exception) -> str:
    """Return the problem in a message of torch, without the source line before it and the advice after it."""
    problem = re.sub(r"^\[\S+:\d+\] ", "", str(error).strip()).partition("\n")[0]
    return problem.partition(". ")[0] or type(error).__name__


class RankMismatch(RunError):
    """Ranks have different parameters, none of which can be used."""


def check_agreement(agent: Agent, ranks: Ranks, iteration: int) -> None:
    """Compare the parameters of all ranks. They can differ if the ranks run on different kinds of processors.

    Args:
        agent: agent of this rank.
        ranks: ranks of the run.
        iteration: number of the last iteration, for the message.

    Raises:
        RankMismatch: parameters differ.
    """
    weights = {name: list(getattr(agent, name).parameters()) for name in ("policy", "critic")}
    sums = {
        name: float(flatten(parameters).double().sum()) for name, parameters in weights.items() if parameters
    }
    if any(other != sums for other in ranks.gather(sums)):
        raise RankMismatch(
            f"iteration {iteration}: the ranks have different parameters, for example because they run on different "
            "kinds of processors; use equal processors and resume from the last checkpoint"
        )
