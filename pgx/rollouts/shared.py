"""Tensors that several processes see."""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

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
