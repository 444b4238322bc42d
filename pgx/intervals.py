"""What a few returns say of those that were not seen: a robust mean, and how far off it may be."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of intervals: the share of repetitions whose interval would hold the truth
RESAMPLES = 5_000  # the ends of an interval then vary by some hundredths of its width

Values = NDArray[np.float64]


def mean(values: Values) -> Values:
    """The mean over the last axis."""
    averaged: Values = values.mean(-1)
    return averaged


def interquartile_mean(values: Values) -> Values:
    """The mean of the middle half: of n sorted values, without the floor(n / 4) smallest and as many of the largest.

    Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021, section 4.3.

    Args:
        values: [..., n], n >= 1, in any order.

    Returns:
        [...], in the unit of the values.
    """
    cut = values.shape[-1] // 4
    middle: Values = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(-1)
    return middle


def interval(
    values: Sequence[float], statistic: Callable[[Values], Values], seed: int
) -> tuple[float, float] | None:
    """The 95% interval of a statistic by the percentile bootstrap: over as many values drawn with replacement.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.

    Args:
        values: drawn independently of each other.
        statistic: over the last axis.
        seed: of the draws.

    Returns:
        Its ends, in the unit of the values; None: of one value there is nothing to resample.
    """
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (RESAMPLES, len(values)))
    low, high = np.quantile(statistic(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
