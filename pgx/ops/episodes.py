"""Functions of whole episodes: a grid with one column per episode, and statistics across episodes."""

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
    step, episode = _step_and_episode(time, valid)
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
    x[valid] = grid[_step_and_episode(time, valid)]
    return x


def _step_and_episode(time: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
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


def trajectory_objective(log_prob: Tensor, weight: Tensor, episodes: Tensor) -> Tensor:
    """The function whose gradient is the likelihood-ratio estimate of the gradient of the expected return.

    L = 1/n Σ_i Σ_t log π(a_it|s_it) w_it over n episodes: the sum over an episode's steps, the mean over episodes. A
    mean over rows instead would divide by the mean length, which depends on the policy.

    Source: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
    1992, episodic REINFORCE, averaged over episodes.

    Args:
        log_prob: [B] nats.
        weight: [B], constant in the parameters.
        episodes: n >= 1, scalar.

    Returns:
        Scalar, to be maximized; only its gradient means anything.
    """
    return (log_prob * weight).sum() / episodes


def at_episode_start(x: Tensor, time: Tensor) -> Tensor:
    """In every row what x is in the first row of that row's episode.

    y_t = x_{t - time_t}; of the returns G_t it makes the return of the whole episode, G_0 = R(τ), in each of its rows.

    Args:
        x: [T, N].
        time: [T, N] int64, at most the row's own number.

    Returns:
        [T, N].
    """
    row = torch.arange(len(time), device=time.device).unsqueeze(-1)
    return x.gather(0, row - time)


def discounted_by_time(x: Tensor, time: Tensor, discount: float) -> Tensor:
    """x as it counts at the start of its episode.

    y_t = γ^t x_t; of the returns G_t it makes the weights of the exact gradient of the discounted objective.

    Source: Sutton and Barto, Reinforcement Learning, 2nd ed., section 13.3, the update of their REINFORCE box.

    Args:
        x: [T, N].
        time: [T, N] int64.
        discount: γ in [0, 1]; 0^0 is 1.

    Returns:
        [T, N].
    """
    return torch.pow(torch.tensor(discount, dtype=x.dtype, device=x.device), time) * x


def other_episodes_mean(x: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """The mean of x over all rows of all other episodes; 0 where there is no other episode.

    b_i = Σ_{j≠i} Σ_t x_jt / Σ_{j≠i} T_j. It leaves out the episode that it is for, whose actions it is then
    independent of: as a baseline it is unbiased, which the mean over all episodes is not.

    Source: Kool, van Hoof and Welling, "Buy 4 REINFORCE samples, get a baseline for free!", 2019; there an episode has
    one weight, here one in each row, and long episodes count by their rows.

    Args:
        x: [T, N].
        time: [T, N] int64.
        valid: [T, N] bool.

    Returns:
        [T, N], the same number in all rows of an episode.
    """
    episode = episode_numbers(time, valid)
    rows = torch.bincount(episode)
    total = x.new_zeros(len(rows)).index_add(0, episode, x[valid])
    return _scatter(_mean(sum_of_others(total), sum_of_others(rows))[episode], valid)


def other_episodes_mean_at_step(x: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """The mean of x at the same step of the other episodes that lasted so long; 0 where none did.

    b_it = Σ_{j≠i, T_j>t} x_jt / #{j≠i: T_j > t}.

    Whether the own episode lasts to step t is known before its action there, so this too is unbiased.

    Source: as in `other_episodes_mean`.

    Args:
        x: [T, N].
        time: [T, N] int64.
        valid: [T, N] bool.

    Returns:
        [T, N].
    """
    grid, lasts = to_grid(x, time, valid), to_grid(valid, time, valid)
    return from_grid(_mean(sum_of_others(grid), sum_of_others(lasts.long())), time, valid)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """Return total / count, and 0 where the count is 0."""
    return torch.where(count > 0, total / count.clamp(min=1), 0.0)


def _scatter(rows: Tensor, valid: Tensor) -> Tensor:
    """[B] values of the valid rows as [T, N], 0 elsewhere."""
    return rows.new_zeros(valid.shape).masked_scatter(valid, rows)
