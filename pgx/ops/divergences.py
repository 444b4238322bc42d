"""KL divergences in forms without cancellation for close distributions."""

import torch
from torch import Tensor


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) of each row: never negative, 0 for equal rows, accurate for rows that differ little.

    KL = Σ_a p_a (e^d_a - 1 - d_a) + Σ_{a: p_a = 0} q_a, with d_a = log q_a - log p_a. No term is negative. It equals
    Σ_a p_a (log p_a - log q_a), because p and q sum to 1; that sum has terms of both signs, which cancel where p and q
    are close.

    Source: Schulman, "Approximating KL divergence", 2020, the estimator k3 with r = q / p, here as an exact sum.

    Args:
        log_p, log_q: [..., K] normalized, nats, float64; -inf where a probability is 0.

    Returns:
        [...] nats; inf where q is 0 and p is not.
    """
    p, q = log_p.exp(), log_q.exp()
    difference = torch.where(p > 0, log_q - log_p, 0.0)
    close = (p > 0) & (difference.abs() < 1)
    # For large differences nothing cancels, and expm1 would overflow. Each branch receives finite numbers only, so that
    # its gradient is finite too.
    near = torch.where(close, difference, 0.0)
    return torch.where(close, p * expm1_minus(near), q - p - p * difference).sum(-1)


def gaussian_kl(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """Return KL(N(μ, σ²) || N(μ', σ'²)) of diagonal Gaussians: never negative, accurate where they differ little.

    KL = ½ Σ_i [ e^d_i - 1 - d_i + (μ_i - μ'_i)² / σ'_i² ] with d_i = 2 (log σ_i - log σ'_i). No term is negative. It
    equals Σ_i [ log σ'_i - log σ_i + (σ_i² + (μ_i - μ'_i)²) / 2σ'_i² - 1/2 ], whose terms cancel where the two are
    close.

    Source: the closed form of two Gaussians, with σ_i² / σ'_i² = e^d_i.

    Args:
        mean, log_std: [..., A] μ and log σ, float64; log_std in nats.
        other_mean, other_log_std: [..., A] μ' and log σ'.

    Returns:
        [...] nats.
    """
    moved = ((mean - other_mean) * (-other_log_std).exp()).square()
    return 0.5 * (expm1_minus(2 * (log_std - other_log_std)) + moved).sum(-1)


def expm1_minus(x: Tensor) -> Tensor:
    """Return e^x - 1 - x, which is at least 0 and close to x²/2 for small x.

    Args:
        x: of any shape.

    Returns:
        The shape of x.
    """
    return (x.expm1() - x).clamp(min=0)
