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

    `features` contains L steps of S sequences, including burn-in steps, which are not rows. Row b of the observations
    is step `step[b]` of sequence `sequence[b]`.
    """

    features: Tensor  # [L, S, ...] normalized
    begins: Tensor  # [L, S] bool: first step of an episode; the recurrent state before it is zero
    recurrent_state: Tensor  # [S, M] before the first step
    burn_in: Tensor  # [L, S] bool: steps that only recompute the recurrent state, without gradients
    step: Tensor  # [B] int64
    sequence: Tensor  # [B] int64

    def __getitem__(self, index: Tensor) -> "History":
        """Return the rows with index [b] and their sequences."""
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
    """B observations in the form that networks take."""

    features: Tensor  # [B, ...] normalized numbers; int64 [B] where discrete; uint8 where images
    time: Tensor  # [B] int64, steps of the episode before this one
    action_mask: Tensor | None = None  # [B, K] bool, available actions; None: all
    history: History | None = None  # for a recurrent policy

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, index: Tensor) -> "Observations":
        """Return some of the rows; index [b] int64."""
        return Observations(
            self.features[index],
            self.time[index],
            None if self.action_mask is None else self.action_mask[index],
            None if self.history is None else self.history[index],
        )


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments.

    `next_obs` is the true successor of each step, before any reset. `terminated` (the task ended: the successor has
    V = 0) and `truncated` (a limit cut the episode: V of the successor is estimated) are separate. `valid` is False for
    rows that are not data: resets, and rows after the requested ones. They must not be learned from or counted.
    """

    obs: Tensor  # [T, N, ...] raw
    action: Tensor  # [T, N, ...] as the policy sampled it, before squashing or clipping
    log_prob: Tensor  # [T, N] log mu(a | s) of the behaviour policy, nats
    reward: Tensor  # [T, N]
    next_obs: Tensor  # [T, N, ...]
    terminated: Tensor  # [T, N] bool
    truncated: Tensor  # [T, N] bool
    valid: Tensor  # [T, N] bool
    time: Tensor  # [T, N] int64, steps of the episode before this one
    action_mask: Tensor | None = None  # [T, N, K] bool, available actions; None: all
    recurrent_state: Tensor | None = None  # [T, N, M] before each step; None: a feed-forward policy
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
        """Ends of episodes, terminated or truncated, [T, N] bool."""
        return self.terminated | self.truncated

    @property
    def steps(self) -> int:
        """Number of valid rows: environment steps."""
        return int(self.valid.sum())

    @property
    def rows_of_all_ranks(self) -> int:
        """Number of valid rows of all ranks."""
        return self.steps if self.shard is None else self.shard.total


@dataclass(frozen=True)
class Batch:
    """Valid rows of a rollout, flattened, with advantages and value targets."""

    obs: Observations  # B rows
    action: Tensor  # [B, ...]
    log_prob: Tensor  # [B] of the behaviour policy, nats
    value: Tensor  # [B] of the critic before the update
    advantage: Tensor  # [B]
    value_target: Tensor  # [B] regression target of the critic
    shard: Shard | None = None  # positions of the rows among those of all ranks; None: one rank

    def __len__(self) -> int:
        return int(self.log_prob.shape[0])

    def minibatches(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Shuffle the rows and divide them into minibatches, returned as indices [b].

        The sizes of minibatches differ by one row at most, so that no small remainder takes a step as large as the
        others; reset rows make a batch slightly smaller than T * N. For a recurrent policy whole sequences are
        shuffled. With several ranks the rows of all ranks are shuffled, equally on each rank, and a rank gets its
        rows of each minibatch, possibly none.

        Args:
            size: target size over all ranks; there are round(B / size) minibatches, at least one.
            generator: random stream of the shuffle.
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
        """Return some of the rows; index [b] int64."""
        shard = None if self.shard is None else self.shard.rows(index)
        columns = {c.name: getattr(self, c.name)[index] for c in fields(self) if c.name != "shard"}
        return Batch(**columns, shard=shard)

    def averaged(self, *means: Tensor) -> tuple[Tensor, ...]:
        """Turn means over these rows into means over the rows of all ranks."""
        return means if self.shard is None else self.shard.ranks.mean(self.log_prob, *means)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of x [B] over the rows of all ranks, scalar."""
        return self.averaged(x.mean())[0]

    def gather(self, columns: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return columns [B] joined with those of all ranks, detached."""
        return columns if self.shard is None else self.shard.gather(columns)


def shuffled_parts(
    total: int, size: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, ...]:
    """Return the indices 0 .. total - 1 in random order, in round(total / size) parts, at least one; [b] int64 each.

    Args:
        total: number of rows.
        size: target size of a part.
        generator: random stream of the order.
        device: device of the result.
    """
    shuffled = torch.randperm(total, generator=generator).to(device)
    return shuffled.tensor_split(max(1, round(total / size)))


def rows_of(data: tuple[Any, ...], index: Tensor) -> tuple[Any, ...]:
    """Return some of the rows of batches, distributions, observations and tensors; index [b] int64.

    Tensors without dimensions belong to all rows and are returned as they are.
    """

    def some(item: Any) -> Any:
        if isinstance(item, Tensor | Observations):
            return item if isinstance(item, Tensor) and item.dim() == 0 else item[index]
        return item.rows(index)

    return tuple(map(some, data))
