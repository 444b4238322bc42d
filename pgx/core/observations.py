"""Observations as the networks see them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class History:
    """Stretches of experience that a policy with memory reads from their beginning, and where rows lie in them.

    `features` holds L steps of S stretches, those before the rows' own included (burn-in). Row b of the
    observations is step `step[b]` of stretch `stretch[b]`.
    """

    features: Tensor  # [L, S, ...] normalised
    begins: Tensor  # [L, S] bool: an episode begins with this step, and memory is empty before it
    memory: Tensor  # [S, M] before the first step
    burn_in: Tensor  # [L, S] bool: steps that only warm the memory up; no gradient flows out of them
    step: Tensor  # [B] int64
    stretch: Tensor  # [B] int64

    def __getitem__(self, index: Tensor) -> "History":
        """The rows of index [b], with no more stretches than they lie in."""
        used, stretch = torch.unique(self.stretch[index], return_inverse=True)
        return History(
            self.features[:, used],
            self.begins[:, used],
            self.memory[used],
            self.burn_in[:, used],
            self.step[index],
            stretch,
        )


@dataclass(frozen=True)
class Observations:
    """B observations as the networks see them."""

    features: Tensor  # [B, ...] normalised numbers; int64 [B] where discrete; uint8 where images
    time: Tensor  # [B] int64, steps of the episode before this one
    action_mask: Tensor | None = None  # [B, K] bool, the actions that can be taken; None: all
    history: History | None = None  # for a policy with memory

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, index: Tensor) -> "Observations":
        """Some of the rows; index [b] int64."""
        return Observations(
            self.features[index],
            self.time[index],
            None if self.action_mask is None else self.action_mask[index],
            None if self.history is None else self.history[index],
        )
