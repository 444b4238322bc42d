"""Observations, rollouts and batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pgx.core.ranks import Shard


@dataclass(frozen=True)
class History:
    """Sequences that a recurrent policy unrolls, and the position of each row in them.

    `features` holds L steps of S sequences, those before the rows' own included (burn-in). Row b of the
    observations is step `step[b]` of sequence `sequence[b]`.
    """

    features: Tensor  # [L, S, ...] normalised
    begins: Tensor  # [L, S] bool: an episode begins with this step, and the recurrent state is zero before it
    recurrent_state: Tensor  # [S, M] before the first step
    burn_in: Tensor  # [L, S] bool: steps that only warm the recurrent state up; no gradient flows out of them
    step: Tensor  # [B] int64
    sequence: Tensor  # [B] int64

    def __getitem__(self, index: Tensor) -> "History":
        """The rows of index [b], with no more sequences than they lie in."""
        used, sequence = torch.unique(self.sequence[index], return_inverse=True)
        return History(
            self.features[:, used],
            self.begins[:, used],
            self.recurrent_state[used],
            self.burn_in[:, used],
            self.step[index],
            sequence,
        )


@dataclass(frozen=True)
class Observations:
    """B observations as the networks see them."""

    features: Tensor  # [B, ...] normalised numbers; int64 [B] where discrete; uint8 where images
    time: Tensor  # [B] int64, steps of the episode before this one
    action_mask: Tensor | None = None  # [B, K] bool, the actions that can be taken; None: all
    history: History | None = None  # for a recurrent policy

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


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments, as they happened.

    `next_obs` is the true successor of each step, before any reset. `terminated` (the task ended: V = 0 there)
    and `truncated` (a time limit cut it: V goes on) never merge. `valid` is False for a row that is not data: one in
    which a vector environment only reset itself, or one past what was asked for. Nothing may learn from it or count it.
    """

    obs: Tensor  # [T, N, ...] raw, as the environment gave it
    action: Tensor  # [T, N, ...] the policy's own sample, before squashing or clipping to the action space
    log_prob: Tensor  # [T, N] log mu(a | s) of the policy that acted, nats
    reward: Tensor  # [T, N]
    next_obs: Tensor  # [T, N, ...]
    terminated: Tensor  # [T, N] bool
    truncated: Tensor  # [T, N] bool
    valid: Tensor  # [T, N] bool
    time: Tensor  # [T, N] int64, steps of the episode before this one
    action_mask: Tensor | None = None  # [T, N, K] bool, the actions that could be taken; None: all
    recurrent_state: Tensor | None = (
        None  # [T, N, M] of the policy before each step; None: a feed-forward policy
    )
    shard: Shard | None = None  # positions of the valid rows among those of all ranks; None: one rank

    def __post_init__(self) -> None:
        shape = self.log_prob.shape
        if len(shape) != 2:
            raise ValueError(f"Rollout.log_prob: expected shape [T, N], got {list(shape)}")
        for column in fields(self):
            value: Any = getattr(self, column.name)
            if isinstance(value, Tensor) and value.shape[:2] != shape:
                raise ValueError(
                    f"Rollout.{column.name}: expected leading shape {list(shape)} (that of log_prob), "
                    f"got {list(value.shape)}"
                )
        if self.reward.shape != shape:
            raise ValueError(f"Rollout.reward: expected shape {list(shape)}, got {list(self.reward.shape)}")
        if self.next_obs.shape != self.obs.shape or self.next_obs.dtype != self.obs.dtype:
            raise ValueError("Rollout.next_obs: expected the shape and dtype of obs")
        kinds = {"terminated": torch.bool, "truncated": torch.bool, "valid": torch.bool, "time": torch.int64}
        for name, dtype in kinds.items():
            value = getattr(self, name)
            if value.dtype != dtype or value.shape != shape:
                raise ValueError(
                    f"Rollout.{name}: expected {dtype} {list(shape)}, got {value.dtype} {list(value.shape)}"
                )
        for name in ("log_prob", "reward"):
            if not getattr(self, name).is_floating_point():
                raise ValueError(f"Rollout.{name}: expected floating point, got {getattr(self, name).dtype}")

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> "Rollout":
        """Return the rollout of stored columns. Names of pgx 0.1 are accepted."""
        renamed = {"memory": "recurrent_state", "share": "shard"}
        return cls(**{renamed.get(name, name): x for name, x in columns.items()})

    @property
    def done(self) -> Tensor:
        """Where an episode ended, either way; [T, N] bool."""
        return self.terminated | self.truncated

    @property
    def steps(self) -> int:
        """Environment steps really taken: the number of valid rows."""
        return int(self.valid.sum())

    @property
    def rows_of_all_ranks(self) -> int:
        """Valid rows, over all ranks."""
        return self.steps if self.shard is None else self.shard.total


@dataclass(frozen=True)
class Batch:
    """The valid rows of a rollout, flattened, with what an update rule learns from."""

    obs: Observations  # B of them
    action: Tensor  # [B, ...]
    log_prob: Tensor  # [B] of the behaviour policy, nats
    value: Tensor  # [B] the critic's estimate before the update
    advantage: Tensor  # [B]
    value_target: Tensor  # [B] what the critic regresses on
    shard: Shard | None = None  # positions of the rows among those of all ranks; None: one rank

    def __len__(self) -> int:
        return int(self.log_prob.shape[0])

    def minibatches(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The batch once, shuffled, in parts of nearly equal length, as indices [b] of its rows.

        Over several ranks it is the rows of all that are shuffled, alike on all; of each part a rank has those that are
        its own, perhaps none.

        Reset rows make a batch slightly shorter than T * N; the parts then differ by one row instead of
        leaving a remnant of a few rows to take a step as large as the others. Under a recurrent policy it is
        sequences that are shuffled, each of which keeps its rows together.

        Args:
            size: rows aimed at per part, over all ranks; round(B / size) parts are made, at least one.
            generator: the stream that the shuffle is drawn from.
        """
        total = len(self) if self.shard is None else self.shard.total
        device = self.value.device
        if self.obs.history is None:
            if self.shard is None:
                return shuffled_parts(total, size, generator, device)
            parts = shuffled_parts(total, size, generator, torch.device("cpu"))
            return tuple(self.shard.local_rows(part).to(device) for part in parts)
        sequence = self.obs.history.sequence
        used: Tensor = torch.unique(sequence)
        shuffled = torch.randperm(len(used), generator=generator).to(device)
        order = used[shuffled].tensor_split(min(max(1, round(total / size)), len(used)))
        return tuple(torch.isin(sequence, some).nonzero().squeeze(-1) for some in order)

    def rows(self, index: Tensor) -> "Batch":
        """Some of the rows; index [b] int64."""
        shard = None if self.shard is None else self.shard.rows(index)
        columns = {c.name: getattr(self, c.name)[index] for c in fields(self) if c.name != "shard"}
        return Batch(**columns, shard=shard)

    def averaged(self, *means: Tensor) -> tuple[Tensor, ...]:
        """Means over these rows, made means over the rows of all ranks."""
        return means if self.shard is None else self.shard.ranks.mean(self.log_prob, *means)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of x [B] over the rows of all ranks, scalar."""
        return self.averaged(x.mean())[0]

    def gather(self, columns: Sequence[Tensor]) -> Sequence[Tensor]:
        """Columns [B] with the rows of all ranks, detached."""
        return columns if self.shard is None else self.shard.gather(columns)


def shuffled_parts(
    total: int, size: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, ...]:
    """The rows 0 .. total - 1 in random order, in round(total / size) parts, at least one; [b] int64 each.

    Args:
        total: rows.
        size: rows aimed at per part.
        generator: the stream that the order is drawn from.
        device: where the rows are.
    """
    shuffled = torch.randperm(total, generator=generator).to(device)
    return shuffled.tensor_split(max(1, round(total / size)))


def rows_of(data: tuple[Any, ...], index: Tensor) -> tuple[Any, ...]:
    """Some of the rows of batches, distributions, observations and tensors; index [b] int64.

    A tensor without dimensions belongs to all rows and stays.
    """

    def some(item: Any) -> Any:
        if isinstance(item, Tensor | Observations):
            return item if isinstance(item, Tensor) and item.dim() == 0 else item[index]
        return item.rows(index)

    return tuple(map(some, data))
