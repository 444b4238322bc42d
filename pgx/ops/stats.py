"""Statistics of samples and of importance weights."""

import math

import torch
from torch import Tensor


def effective_sample_size(log_ratio: Tensor) -> float:
    """Share of the samples that importance weights leave in effect.

    ESS = (Σ w)² / (n Σ w²), with w = exp(log_ratio); 1 when all weights are equal, 1/n when one holds all.

    Source: Kong, "A note on importance sampling using standardized weights", 1992, divided by n.

    Args:
        log_ratio: any shape, nats.

    Returns:
        A number in (0, 1].
    """
    x = log_ratio.flatten().double()
    log_ess = 2 * torch.logsumexp(x, 0) - torch.logsumexp(2 * x, 0) - math.log(x.numel())
    return min(1.0, float(log_ess.exp()))


def clip_fraction(log_ratio: Tensor, clip_range: float) -> float:
    """Share of the samples whose probability ratio left [1 - clip_range, 1 + clip_range]; in [0, 1].

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, the interval of eq. 7.
    """
    return float(((log_ratio.exp() - 1).abs() > clip_range).float().mean())


def explained_variance(prediction: Tensor, target: Tensor) -> float:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than the mean, below 0 worse.

    Args:
        prediction, target: the same shape.

    Returns:
        A number <= 1; NaN when the target is constant, for which the share is undefined.
    """
    variance = target.double().var(correction=0)
    if variance == 0:
        return math.nan
    return float(1 - (target.double() - prediction.double()).var(correction=0) / variance)


def standardize(x: Tensor) -> Tensor:
    """(x - mean) / standard deviation, over all elements; a constant x becomes 0."""
    deviation = x - x.mean()
    # The floor keeps rounding noise of a constant tensor from being blown up to unit variance.
    return deviation / (deviation.square().mean().sqrt() + 1e-8)
