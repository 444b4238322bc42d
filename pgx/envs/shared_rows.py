"""What the processes backend and its workers see of each other: one array a kind of number, a row an environment."""

import mmap
import os
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pgx.core.specs import ActionSpec, Continuous, Discrete, ObsSpec, choices, obs_dtype
from pgx.envs.vector import Array

ALIGNMENT = 64  # bytes; of a cache line


class SharedRows(NamedTuple):
    """Views on the same memory in every process. A worker writes the rows of its environments, but for actions."""

    action: Array  # [N, ...] as the policy sampled them
    obs: Array  # [N, ...]
    reward: NDArray[np.float64]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    success: NDArray[np.int8]  # [N] as in VectorEnv; -1 where nothing is said
    masked: NDArray[np.bool_]  # [N] whether the environment, or another of its worker's, shows an action mask
    mask: NDArray[np.bool_]  # [N, K]; K = 0 for continuous actions
    readings: NDArray[np.float64]  # [N, R] all of them, side by side


def allocate() -> int:
    """A descriptor of memory without a name: it is gone with the last process that has it, however that ends."""
    return os.memfd_create("pgx")


def layout(
    num_envs: int, obs: ObsSpec, action: ActionSpec, readings: int
) -> list[tuple[tuple[int, ...], DTypeLike]]:
    """Shape and type of each of SharedRows, in order; `readings` is R."""
    # float64 holds every float32 and float64, so that the worker clips the very numbers that were sampled.
    taken = np.float64 if isinstance(action, Continuous) else np.int64
    width = action.shape if isinstance(action, Continuous) else (len(choices(action)),)
    if isinstance(action, Discrete):
        width = ()
    return [
        ((num_envs, *width), taken),
        ((num_envs, *(() if isinstance(obs, Discrete) else obs.shape)), obs_dtype(obs)),
        ((num_envs,), np.float64),
        ((num_envs,), np.bool_),
        ((num_envs,), np.bool_),
        ((num_envs,), np.int8),
        ((num_envs,), np.bool_),
        ((num_envs, sum(choices(action))), np.bool_),
        ((num_envs, readings), np.float64),
    ]


def attach(memory: int, num_envs: int, obs: ObsSpec, action: ActionSpec, readings: int) -> SharedRows:
    """Map the memory, which grows to the size that is needed; its numbers are 0 at first."""
    parts = layout(num_envs, obs, action, readings)
    offsets = [0]
    for shape, dtype in parts:
        size = prod(shape) * np.dtype(dtype).itemsize
        offsets.append(offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    os.ftruncate(memory, offsets[-1])
    block = mmap.mmap(memory, offsets[-1])
    return SharedRows(
        *(
            np.ndarray(shape, dtype, block, offset)
            for (shape, dtype), offset in zip(parts, offsets, strict=False)
        )
    )
