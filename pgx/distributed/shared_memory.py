"""Arrays that several processes read and write. Imports no torch."""

import mmap
import os
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 64  # bytes of a cache line


class ArraySpec(NamedTuple):
    """Name, shape and type of an array in shared memory."""

    name: str
    shape: tuple[int, ...]
    dtype: DTypeLike


def allocate() -> int:
    """Return a descriptor of anonymous memory. The kernel frees it when the last process that has it exits."""
    return os.memfd_create("pgx")


def attach(memory: int, specs: Sequence[ArraySpec]) -> dict[str, NDArray[Any]]:
    """Map arrays of shared memory, which grows to the size they need and is zero at first.

    Args:
        memory: descriptor from `allocate`, of this process or inherited.
        specs: the same in every process.

    Returns:
        The arrays by name. Every process sees what another writes into them.
    """
    offsets = [0]
    for spec in specs:
        size = prod(spec.shape) * np.dtype(spec.dtype).itemsize
        offsets.append(offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    length = max(offsets[-1], ALIGNMENT)
    if os.fstat(memory).st_size < length:
        os.ftruncate(memory, length)
    block = mmap.mmap(memory, length)
    return {
        spec.name: np.ndarray(spec.shape, spec.dtype, block, offset)
        for spec, offset in zip(specs, offsets, strict=False)
    }
