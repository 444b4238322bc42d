"""Importance weights of trajectories, computed from per-step log ratios log π(a|s) - log μ(a|s)."""

import math

import torch
from torch import Tensor

from pgx.ops.returns import backward_recurrence


def per_decision_weights(log_ratio: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """Product of the ratios from the start of the episode up to and including step t.

    w_t = Π_{k<=t} π(a_k|s_k) / μ(a_k|s_k), over the steps of the episode that are in the rollout.

    Source: Precup, Sutton and Singh, "Eligibility traces for off-policy policy evaluation", 2000, section 3.

    Args:
        log_ratio: [T, N] nats; 0 in rows that are not data.
        terminated, truncated: [T, N] bool.

    Returns:
        [T, N], > 0.
    """
    return log_per_decision_weights(log_ratio, terminated, truncated).exp()


def log_per_decision_weights(log_ratio: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """Log of `per_decision_weights`, which neither overflows nor underflows for hundreds of ratios."""
    return _log_product_so_far(log_ratio, terminated | truncated)


def trajectory_weights(log_ratio: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """Product of the ratios over the whole episode, the same value in each of its rows.

    w(τ) = Π_t π(a_t|s_t) / μ(a_t|s_t).

    Source: Precup, Sutton and Singh, 2000, section 2 (ordinary importance sampling).

    Args:
        log_ratio: [T, N] nats; 0 in rows that are not data.
        terminated, truncated: [T, N] bool.

    Returns:
        [T, N], > 0.
    """
    return log_trajectory_weights(log_ratio, terminated, truncated).exp()


def log_trajectory_weights(log_ratio: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """Log of `trajectory_weights`."""
    done = terminated | truncated
    so_far = _log_product_so_far(log_ratio, done)
    from_here = backward_recurrence(log_ratio, (~done).to(log_ratio.dtype))
    after_here = torch.cat([from_here[1:], torch.zeros_like(from_here[:1])])
    return so_far + torch.where(done, 0.0, after_here)


def log_truncated_weights(log_weight: Tensor, bound: float) -> Tensor:
    """Log of weights truncated at a bound: less variance, and a bias towards the behavior policy.

    w' = min(w, c).

    Source: Ionides, "Truncated importance sampling", 2008. There c grows with the square root of the number of samples,
    so that the bias vanishes; here c is constant.

    Args:
        log_weight: log w, any shape.
        bound: c > 0.

    Returns:
        log w', the same shape.
    """
    return log_weight.clamp(max=math.log(bound))


def log_self_normalized_weights(log_weight: Tensor) -> Tensor:
    """Log of weights divided by their mean over the samples: weighted importance sampling.

    w'_i = n w_i / Σ_j w_j, so that mean_i(w'_i x_i) = Σ_i w_i x_i / Σ_i w_i: a weighted average of the samples, with a
    bias of O(1/n), consistent, and independent of a common factor of all weights. Each row is normalized separately.

    Source: Precup, Sutton and Singh, 2000, section 2 (weighted importance sampling); for weights per decision, with a
    sum for each time step: Thomas, "Safe reinforcement learning", PhD thesis, 2015 (consistent weighted per-decision
    importance sampling).

    Args:
        log_weight: log w of n samples, [..., n].

    Returns:
        log w', the same shape; the mean of w' over the last dimension is 1.
    """
    n = log_weight.shape[-1]
    return log_weight - torch.logsumexp(log_weight, -1, keepdim=True) + math.log(n)


def _log_product_so_far(log_ratio: Tensor, done: Tensor) -> Tensor:
    same_episode_as_before = torch.cat([torch.zeros_like(done[:1]), ~done[:-1]])
    backward_in_time = backward_recurrence(
        log_ratio.flip(0), same_episode_as_before.flip(0).to(log_ratio.dtype)
    )
    return backward_in_time.flip(0)
