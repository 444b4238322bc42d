"""Rollouts of whole episodes as a grid [L, E] with every episode in a column of its own, and baselines across them.

`time` [T, N] int64 counts the steps of each row's episode before it, `valid` [T, N] bool marks the rows that are data;
every episode begins in the rollout. L is the longest episode's length, E the number of episodes.
"""

import torch
from torch import Tensor


def to_grid(x: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """Each valid row of x where its step and its episode meet.

    Args:
        x: [T, N].
        time, valid: [T, N].

    Returns:
        [L, E], 0 past an episode's end.
    """
    step, episode = _places(time, valid)
    grid = x.new_zeros(int(step.max()) + 1, int(episode.max()) + 1)
    grid[step, episode] = x[valid]
    return grid


def from_grid(grid: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """The way back.

    Args:
        grid: [L, E].
        time, valid: [T, N].

    Returns:
        [T, N], 0 in rows that are not valid.
    """
    x = grid.new_zeros(valid.shape)
    x[valid] = grid[_places(time, valid)]
    return x


def _places(time: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Step and episode of the B valid rows, [B] int64 each."""
    return time[valid], episode_numbers(time, valid)


def episode_numbers(time: Tensor, valid: Tensor) -> Tensor:
    """Which episode each valid row belongs to, numbered from 0, environment by environment.

    Args:
        time, valid: [T, N].

    Returns:
        [B] int64.
    """
    begins = (valid & (time == 0)).T
    episode = begins.flatten().cumsum(0).view_as(begins).T - 1
    return episode[valid]


def sum_of_others(x: Tensor) -> Tensor:
    """Σ_{j≠i} x_j over the last dimension.

    From the sums before and after i, and not as the whole sum less x_i: next to one number that exceeds the rest by
    more than the digits that there are, such a difference is noise.

    Args:
        x: [..., E].

    Returns:
        The same shape.
    """
    nothing = torch.zeros_like(x[..., :1])
    before = torch.cat([nothing, x.cumsum(-1)[..., :-1]], -1)
    after = torch.cat([x.flip(-1).cumsum(-1).flip(-1)[..., 1:], nothing], -1)
    return before + after
