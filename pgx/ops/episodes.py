"""Functions of whole episodes: a grid with one column per episode, and statistics across episodes.

Results in rows that are not valid have no meaning, and no valid row depends on such rows.
"""

import torch
from torch import Tensor


def to_grid(x: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """Arrange the valid rows of x by step and episode.

    Args:
        x: [T, N].
        time: [T, N] int64 steps of the episode before each row.
        valid: [T, N] bool, the rows that are data. Every episode begins in the rollout.

    Returns:
        [L, E] for E episodes of at most L steps, 0 after the end of an episode.
    """
    step, episode = _step_and_episode(time, valid)
    grid = x.new_zeros(int(step.max()) + 1, int(episode.max()) + 1)
    grid[step, episode] = x[valid]
    return grid


def from_grid(grid: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """Return the values of a grid in the rows of the rollout: the inverse of `to_grid`.

    Args:
        grid: [L, E].
        time, valid: [T, N] as in `to_grid`.

    Returns:
        [T, N], 0 in rows that are not valid.
    """
    x = grid.new_zeros(valid.shape)
    x[valid] = grid[_step_and_episode(time, valid)]
    return x


def _step_and_episode(time: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the step and the episode number of the B valid rows, [B] int64 each."""
    return time[valid], episode_numbers(time, valid)


def episode_numbers(time: Tensor, valid: Tensor) -> Tensor:
    """Return the episode number of each valid row, counted from 0 through one environment after another.

    Args:
        time, valid: [T, N] as in `to_grid`.

    Returns:
        [B] int64.
    """
    begins = (valid & (time == 0)).T
    episode = begins.flatten().cumsum(0).view_as(begins).T - 1
    return episode[valid]


def sum_of_others(x: Tensor) -> Tensor:
    """Return Σ_{j≠i} x_j over the last dimension.

    This is the sum before i plus the sum after i. The total minus x_i would be rounding noise for an x_i that exceeds
    the others by more digits than a float has.

    Args:
        x: [..., E].

    Returns:
        The shape of x.
    """
    zero = torch.zeros_like(x[..., :1])
    before = torch.cat([zero, x.cumsum(-1)[..., :-1]], -1)
    after = torch.cat([x.flip(-1).cumsum(-1).flip(-1)[..., 1:], zero], -1)
    return before + after


def trajectory_objective(log_prob: Tensor, weight: Tensor, episodes: Tensor) -> Tensor:
    """Objective whose gradient is the likelihood-ratio estimate of the gradient of the expected return.

    L = 1/n Σ_i Σ_t log π(a_it|s_it) w_it over n episodes: the sum over the steps of an episode, the mean over episodes.
    A mean over rows would also divide by the mean length of an episode, which depends on the policy.

    Source: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
    1992, episodic REINFORCE, averaged over episodes.

    Args:
        log_prob: [B] nats.
        weight: [B], constant in the parameters.
        episodes: n >= 1, scalar.

    Returns:
        Scalar, to be maximized; only its gradient has a meaning.
    """
    return (log_prob * weight).sum() / episodes


def at_episode_start(x: Tensor, time: Tensor) -> Tensor:
    """Return in every row the value of x in the first row of the same episode.

    y_t = x_{t - time_t}. Applied to the returns G_t, it gives the return of the whole episode, G_0 = R(τ), in each row.

    Args:
        x: [T, N].
        time: [T, N] int64 steps of the episode before each row, at most the row's index.

    Returns:
        [T, N].
    """
    row = torch.arange(len(time), device=time.device).unsqueeze(-1)
    return x.gather(0, row - time)


def discounted_by_time(x: Tensor, time: Tensor, discount: float) -> Tensor:
    """Discount x to the start of its episode.

    y_t = γ^t x_t. Applied to the returns G_t, it gives the weights of the exact gradient of the discounted objective.

    Source: Sutton and Barto, Reinforcement Learning, 2nd ed., section 13.3, the update of their REINFORCE box.

    Args:
        x: [T, N].
        time: [T, N] int64 steps of the episode before each row.
        discount: γ in [0, 1]; 0^0 is 1.

    Returns:
        [T, N].
    """
    return torch.pow(torch.tensor(discount, dtype=x.dtype, device=x.device), time) * x


def other_episodes_mean(x: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """Mean of x over all rows of all other episodes; 0 where there is no other episode.

    b_i = Σ_{j≠i} Σ_t x_jt / Σ_{j≠i} T_j. It excludes episode i and so does not depend on the actions of that episode:
    as a baseline it is unbiased, unlike the mean over all episodes.

    Source: Kool, van Hoof and Welling, "Buy 4 REINFORCE samples, get a baseline for free!", 2019. There an episode has
    one weight; here it has one in each row, so that an episode counts by its number of rows.

    Args:
        x: [T, N].
        time, valid: [T, N] as in `to_grid`.

    Returns:
        [T, N], the same number in all rows of an episode.
    """
    episode = episode_numbers(time, valid)
    rows = torch.bincount(episode)
    total = x.new_zeros(len(rows)).index_add(0, episode, x[valid])
    return _scatter(_mean(sum_of_others(total), sum_of_others(rows))[episode], valid)


def other_episodes_mean_at_step(x: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """Mean of x at the same step of the other episodes that reach this step; 0 where none does.

    b_it = Σ_{j≠i, T_j>t} x_jt / #{j≠i: T_j > t}.

    This is unbiased as well: that episode i reaches step t is known before its action at that step.

    Source: as in `other_episodes_mean`.

    Args:
        x: [T, N].
        time, valid: [T, N] as in `to_grid`.

    Returns:
        [T, N].
    """
    grid, lasts = to_grid(x, time, valid), to_grid(valid, time, valid)
    return from_grid(_mean(sum_of_others(grid), sum_of_others(lasts.long())), time, valid)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """Return total / count, and 0 where the count is 0."""
    return torch.where(count > 0, total / count.clamp(min=1), 0.0)


def _scatter(rows: Tensor, valid: Tensor) -> Tensor:
    """Place [B] values of the valid rows in [T, N], with 0 elsewhere."""
    return rows.new_zeros(valid.shape).masked_scatter(valid, rows)
