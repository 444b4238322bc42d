"""Likelihood ratios along trajectories, from per-step log ratios log π(a|s) - log μ(a|s)."""

import torch
from torch import Tensor

from pgx.ops.returns import backward_recurrence


def per_decision_weights(log_ratio: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """Product of the ratios from the start of the episode up to and including step t.

    w_t = Π_{k<=t} π(a_k|s_k) / μ(a_k|s_k), over the steps of t's episode that lie in the rollout.

    Source: Precup, Sutton and Singh, "Eligibility traces for off-policy policy evaluation", 2000, section 3.

    Args:
        log_ratio: [T, N] nats; 0 in rows that are not data.
        terminated, truncated: [T, N] bool.

    Returns:
        [T, N], > 0.
    """
    return _log_product_so_far(log_ratio, terminated | truncated).exp()


def trajectory_weights(log_ratio: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """Product of the ratios over the whole episode, the same number in each of its rows.

    w(τ) = Π_t π(a_t|s_t) / μ(a_t|s_t).

    Source: Precup, Sutton and Singh, 2000, section 2 (ordinary importance sampling).

    Args:
        log_ratio: [T, N] nats; 0 in rows that are not data.
        terminated, truncated: [T, N] bool.

    Returns:
        [T, N], > 0.
    """
    done = terminated | truncated
    so_far = _log_product_so_far(log_ratio, done)
    from_here = backward_recurrence(log_ratio, (~done).to(log_ratio.dtype))
    still_to_come = torch.cat([from_here[1:], torch.zeros_like(from_here[:1])])
    return (so_far + torch.where(done, 0.0, still_to_come)).exp()


def _log_product_so_far(log_ratio: Tensor, done: Tensor) -> Tensor:
    same_episode_as_before = torch.cat([torch.zeros_like(done[:1]), ~done[:-1]])
    backward_in_time = backward_recurrence(
        log_ratio.flip(0), same_episode_as_before.flip(0).to(log_ratio.dtype)
    )
    return backward_in_time.flip(0)
