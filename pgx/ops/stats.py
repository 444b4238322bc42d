"""Statistics of samples and of importance weights."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Data are constant if their standard deviation relative to the root mean square is at most this.
_CONSTANT_TOLERANCE = 1e-12


def effective_sample_size(log_ratio: Tensor) -> Tensor:
    """Effective sample size of importance weights, as a fraction of the number of samples.

    ESS = (Σ w)² / (n Σ w²), with w = exp(log_ratio): 1 if all weights are equal, 1/n if all but one are 0.

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
    """Fraction of the samples whose probability ratio is outside [1 - clip_range, 1 + clip_range].

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, the interval of eq. 7.

    Args:
        log_ratio: any shape, nats.
        clip_range: > 0.

    Returns:
        A scalar in [0, 1], float32.
    """
    inside = (log_ratio.exp() - 1).abs() <= clip_range  # NaN is not inside
    return (~inside).float().mean()


def at_bound(x: Tensor, bound: float) -> Tensor:
    """Return 1 where |x| equals the bound that x was clipped to, and 0 elsewhere.

    Args:
        x: of any shape, clipped to [-bound, bound].
        bound: > 0; infinite for no bound.

    Returns:
        float32, of the shape of x.
    """
    return (x.abs() >= bound).float()


def fraction_outside(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the fraction of each row's components that are outside [low, high] by more than rounding errors.

    A component is outside if clipping changes it by more than 1e-6 of high - low, or, where a bound is infinite, at
    all.

    Args:
        x: [B, K].
        low, high: [K]; infinite for no bound.

    Returns:
        [B] float32 in [0, 1].
    """
    reach = torch.where((high - low).isfinite(), high - low, 0.0)
    return ((x - x.clamp(low, high)).abs() > 1e-6 * reach).float().mean(-1)


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """Explained variance 1 - Var(target - prediction) / Var(target).

    It is 1 for a perfect prediction, 0 for one no better than a constant, and negative for a worse one.

    Args:
        prediction, target: of the same shape.

    Returns:
        A scalar <= 1, float64; NaN if the target is constant, where it is undefined.
    """
    error = target.double() - prediction.double()
    share = 1 - error.var(correction=0) / target.double().var(correction=0)
    # By rounding errors the computed variance of a constant may be positive.
    return torch.where(target.max() == target.min(), math.nan, share)


def standardize(x: Tensor, mean: Callable[[Tensor], Tensor] = Tensor.mean) -> Tensor:
    """Shift and scale x to mean 0 and standard deviation 1 over all elements; a constant x becomes 0.

    z = (x - m) / s, with the mean m and the standard deviation s. z is independent of the unit and the origin of x:
    standardize(a x + b) = standardize(x) for a > 0.

    Args:
        x: any shape and scale.
        mean: returns the mean of all elements; with several ranks, of the elements of all ranks.

    Returns:
        z, of the shape and dtype of x.
    """
    center = mean(x.double())
    deviation = x.double() - center
    variance = mean(deviation.square())
    # The deviations of a constant are rounding errors of its mean, about 1e-16 relative to its size. Two different
    # float32 numbers differ by more than 1e-8 relative to their size.
    constant = variance <= _CONSTANT_TOLERANCE**2 * (variance + center.square())
    return torch.where(constant, 0.0, deviation / variance.sqrt()).to(x.dtype)
