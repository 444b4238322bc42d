"""Parameters of an agent in shared memory."""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.core.agent import Agent
from pgx.distributed.shared_memory import ArraySpec, attach


def array_spec(name: str, tensor: Tensor) -> ArraySpec:
    """Return the layout in shared memory of a tensor."""
    return ArraySpec(name, tuple(tensor.shape), torch.empty(0, dtype=tensor.dtype).numpy().dtype)


def as_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return tensors that use the memory of arrays."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def inference_tensors(agent: Agent) -> dict[str, Tensor]:
    """Return the tensors that determine an agent's actions, by name: those of its policy and observation normalizer."""
    tensors = {f"policy.{name}": tensor for name, tensor in agent.policy.state_dict().items()}
    normalize_fn: object = agent.normalizer.normalize_fn
    if is_dataclass(normalize_fn):
        named = {f"normalizer.{f.name}": getattr(normalize_fn, f.name) for f in fields(normalize_fn)}
        tensors |= {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return tensors


def parameter_specs(tensors: Mapping[str, Tensor]) -> list[ArraySpec]:
    """Return the layout in shared memory of parameters and their version."""
    return [
        ArraySpec("version", (1,), "int64"),
        *(array_spec(name, tensor) for name, tensor in tensors.items()),
    ]


class SharedParameters:
    """Tensors and their version in shared memory, read and written as a whole.

    The kernel releases the lock of a process that exits.

    Args:
        memory: descriptor of shared memory.
        columns: from `parameter_specs`.
    """

    def __init__(self, memory: int, columns: Sequence[ArraySpec]) -> None:
        self._memory = memory
        self._tensors = as_tensors(attach(memory, columns))
        self._version = self._tensors.pop("version")

    @torch.no_grad()
    def publish(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Replace the tensors and their version."""
        with self._locked(fcntl.LOCK_EX):
            self._version.fill_(version)
            for name, shared in self._tensors.items():
                shared.copy_(tensors[name])

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor]) -> int:
        """Copy the shared tensors into tensors of the same names, and return their version."""
        with self._locked(fcntl.LOCK_SH):
            for name, shared in self._tensors.items():
                tensors[name].copy_(shared)
            return int(self._version)

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        fcntl.lockf(self._memory, operation)
        try:
            yield
        finally:
            fcntl.lockf(self._memory, fcntl.LOCK_UN)
