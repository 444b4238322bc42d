"""Tensors that several processes see.

What an agent acts with, where several processes see it.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from math import prod

import torch
from torch import Tensor

from pgx.core.agent import Agent
from pgx.envs.shared_rows import ALIGNMENT, allocate

__all__ = ["Column", "allocate", "attach"]


@dataclass(frozen=True)
class Column:
    """A tensor of the memory, by name."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def attach(memory: int, columns: Sequence[Column]) -> dict[str, Tensor]:
    """Map the memory, which grows to the size that is needed; its numbers are 0 at first.

    Args:
        memory: descriptor from `allocate`, here or in the process that passed it on.
        columns: the same in every process.

    Returns:
        Each by its name; what one process writes into it all see.
    """
    offsets = [0]
    for column in columns:
        size = prod(column.shape) * column.dtype.itemsize
        offsets.append(offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    length = max(offsets[-1], ALIGNMENT)
    if os.fstat(memory).st_size < length:
        os.ftruncate(memory, length)
    block = mmap.mmap(memory, length)
    return {
        column.name: torch.frombuffer(
            block, dtype=column.dtype, count=prod(column.shape), offset=offset
        ).view(column.shape)
        if prod(column.shape)
        else torch.empty(column.shape, dtype=column.dtype)
        for column, offset in zip(columns, offsets, strict=False)
    }


def acting_tensors(agent: Agent) -> dict[str, Tensor]:
    """The tensors that decide how an agent acts, by name: those of its policy and of the lens that it looks through."""
    tensors = {f"policy.{name}": tensor for name, tensor in agent.policy.state_dict().items()}
    normalize_fn: object = agent.normalizer.normalize_fn
    if is_dataclass(normalize_fn):
        named = {f"lens.{field.name}": getattr(normalize_fn, field.name) for field in fields(normalize_fn)}
        tensors |= {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return tensors


def columns_of(tensors: Mapping[str, Tensor]) -> list[Column]:
    """Room for them, and for their version."""
    own = [Column(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]
    return [Column("version", (1,), torch.int64), *own]


class SharedParameters:
    """Tensors and their version, whole for whoever reads them.

    The lock is the kernel's, and goes with a process that dies.

    Args:
        memory: descriptor of shared memory.
        columns: from `columns_of`.
    """

    def __init__(self, memory: int, columns: Sequence[Column]) -> None:
        self._memory = memory
        self._tensors = attach(memory, columns)
        self._version = self._tensors.pop("version")

    @torch.no_grad()
    def publish(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Put other tensors in place of those that are there."""
        with self._locked(fcntl.LOCK_EX):
            self._version.fill_(version)
            for name, shared in self._tensors.items():
                shared.copy_(tensors[name])

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor]) -> int:
        """Copy what is there into tensors of the same names; returns its version."""
        with self._locked(fcntl.LOCK_SH):
            for name, shared in self._tensors.items():
                tensors[name].copy_(shared)
            return int(self._version)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        fcntl.lockf(self._memory, how)
        try:
            yield
        finally:
            fcntl.lockf(self._memory, fcntl.LOCK_UN)
