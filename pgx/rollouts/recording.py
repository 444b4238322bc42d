"""Steps of environments as they come, row by row, in columns that a rollout is made of."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor



class Recording:
    """Columns of [T, N, ...], written a row at a time.

    Args:
        room: rows that fit before the columns have to grow, >= 1.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.steps = 0  # T, so far
        self._columns: dict[str, Array] = {}

    def write(self, name: str, t: int, values: Array) -> None:
        """Row t of a column, [N, ...]; rows that were never written are ones."""
        column = self._columns.get(name)
        if column is None:
            column = np.ones((self.room, *values.shape), values.dtype)
            self._columns[name] = column
        while t >= len(column):
            column = np.concatenate([column, np.ones_like(column)])
            self._columns[name] = column
        column[t] = values

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Array:
        """What was written, [T, N, ...]."""
        return self._columns[name][: self.steps]

    def tensor(self, name: str, device: torch.device, more: int = 0) -> Tensor:
        """What was written, and so many rows after it, [T + more, N, ...]."""
        return torch.from_numpy(self._columns[name][: self.steps + more]).to(device)

    def so_far(self, steps: int) -> dict[str, Tensor]:
        """All columns as they are: their first so many rows, and one more of the observations."""
        return {
            name: torch.from_numpy(column[: steps + (name == "obs")].copy())
            for name, column in self._columns.items()
        }
