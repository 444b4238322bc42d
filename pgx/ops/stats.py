"""Statistics of samples and of importance weights."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Data are constant if their standard deviation relative to the root mean square is at most this.
_CONSTANT_TOLERANCE = 1e-12


def effective_sample_size(log_ratio: Tensor) -> Tensor:
    """Share of the samples that importance weights leave in effect.

    ESS = (Σ w)² / (n Σ w²), with w = exp(log_ratio); 1 when all weights are equal, 1/n when one holds all.

    Source: Kong, "A note on importance sampling using standardized weights", 1992, divided by n.

    Args:
        log_ratio: any shape, nats.

    Returns:
        A scalar in (0, 1], float64.
    """
    x = log_ratio.flatten().double()
    w = (x - x.max()).exp()
    return (w.sum().square() / (x.numel() * w.square().sum())).clamp(
        max=1.0
    )  # rounding may pass 1; NaN stays NaN


def clip_fraction(log_ratio: Tensor, clip_range: float) -> Tensor:
    """Share of the samples whose probability ratio left [1 - clip_range, 1 + clip_range]; scalar in [0, 1].

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, the interval of eq. 7.
    """
    inside = (log_ratio.exp() - 1).abs() <= clip_range  # NaN is not inside
    return (~inside).float().mean()


def at_bound(x: Tensor, bound: float) -> Tensor:
    """Return 1 where |x| has reached the bound that it was clipped to, and 0 elsewhere; its mean is a fraction.

    Args:
        x: of any shape, clipped to [-bound, bound].
        bound: > 0; infinite for none.

    Returns:
        float32, of the shape of x.
    """
    return (x.abs() >= bound).float()


def fraction_outside(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the fraction of each row's components that lie outside [low, high] by more than rounding.

    A component is outside if clipping moves it by more than 1e-6 of high - low; where a bound is infinite, by anything.

    Args:
        x: [B, K].
        low, high: [K], infinite where there is no bound.

    Returns:
        [B] float32 in [0, 1].
    """
    reach = torch.where((high - low).isfinite(), high - low, 0.0)
    return ((x - x.clamp(low, high)).abs() > 1e-6 * reach).float().mean(-1)


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than the mean, below 0 worse.

    Args:
        prediction, target: the same shape.

    Returns:
        A scalar <= 1, float64; NaN when the target is constant, for which the share is undefined.
    """
    error = target.double() - prediction.double()
    share = 1 - error.var(correction=0) / target.double().var(correction=0)
    # Rounding leaves a constant some variance.
    return torch.where(target.max() == target.min(), math.nan, share)


def standardize(x: Tensor, mean: Callable[[Tensor], Tensor] = Tensor.mean) -> Tensor:
    """Shift and scale x to mean 0 and standard deviation 1 over all elements; a constant x becomes 0.

    z = (x - m) / s, with m the mean and s the standard deviation. z does not depend on the unit or the origin of x:
    standardize(a x + b) = standardize(x) for a > 0.

    Args:
        x: any shape and scale.
        mean: returns the mean of all elements; with several ranks, over the elements of all of them.

    Returns:
        z, of the shape and dtype of x.
    """
    center = mean(x.double())
    deviation = x.double() - center
    variance = mean(deviation.square())
    # The deviations of a constant are the rounding errors of its mean, about 1e-16 of its size. Two different float32
    # numbers differ by more than 1e-8 of their size.
    constant = variance <= _CONSTANT_TOLERANCE**2 * (variance + center.square())
    return torch.where(constant, 0.0, deviation / variance.sqrt()).to(x.dtype)
