"""A whole episode, and the way between such and rollouts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pgx.core.data import Rollout


@dataclass(frozen=True)
class Trajectory:
    """One whole episode of L steps, in the numbers that a Rollout has them in."""

    obs: Tensor  # [L + 1, ...] raw; the last one is where it ended
    action: Tensor  # [L, ...] the policy's own sample
    log_prob: Tensor  # [L] log mu(a | s) of the policy that acted, nats
    reward: Tensor  # [L] raw
    terminated: bool  # it ended this way, or the other, or both
    truncated: bool
    action_mask: Tensor | None = None  # [L, K] bool; None: all actions, always

    def __len__(self) -> int:
        return len(self.reward)


def split(rollout: Rollout) -> list[Trajectory]:
    """The episodes of a rollout of whole episodes, environment by environment."""
    found = []
    for i in range(rollout.valid.shape[1]):
        valid, mask = rollout.valid[:, i], rollout.action_mask
        begins = (valid & (rollout.time[:, i] == 0)).nonzero().flatten().tolist()
        ends = (valid & rollout.done[:, i]).nonzero().flatten().tolist()
        for first, last in zip(begins, ends, strict=True):
            own = slice(first, last + 1)
            found.append(
                Trajectory(
                    obs=torch.cat([rollout.obs[own, i], rollout.next_obs[last : last + 1, i]]),
                    action=rollout.action[own, i],
                    log_prob=rollout.log_prob[own, i],
                    reward=rollout.reward[own, i],
                    terminated=bool(rollout.terminated[last, i]),
                    truncated=bool(rollout.truncated[last, i]),
                    action_mask=None if mask is None else mask[own, i],
                )
            )
    return found


def join(episodes: Sequence[Trajectory]) -> Rollout:
    """A rollout with an episode in each column, as long as the longest; what is past an episode's end is not data."""
    lengths = torch.tensor([len(episode) for episode in episodes])
    row = torch.arange(int(lengths.max())).unsqueeze(1)
    valid, last = row < lengths, row == lengths - 1
    masks = [episode.action_mask for episode in episodes if episode.action_mask is not None]
    return Rollout(
        obs=pad_sequence([episode.obs[:-1] for episode in episodes]),
        action=pad_sequence([episode.action for episode in episodes]),
        log_prob=pad_sequence([episode.log_prob for episode in episodes]),
        reward=pad_sequence([episode.reward for episode in episodes]),
        next_obs=pad_sequence([episode.obs[1:] for episode in episodes]),
        terminated=last & torch.tensor([episode.terminated for episode in episodes]),
        truncated=last & torch.tensor([episode.truncated for episode in episodes]),
        valid=valid,
        time=row.where(valid, 0),
        action_mask=pad_sequence(masks, padding_value=1.0) if masks else None,
    )
