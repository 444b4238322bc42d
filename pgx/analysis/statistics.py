"""Statistics of scores over seeds: what a few runs say of all the runs that could have been.

A group's scores come in strata, one array an environment: [n] scores of n runs, or [n, G] where each run has G of them
(a curve). Source of all but the tests of two groups: Agarwal et al., "Deep reinforcement learning at the edge of the
statistical precipice", 2021.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Strata = Sequence[Array]  # one array [n, ...] an environment

# From resampled strata [R, n, ...] to the statistic of each resample [R, ...].
Statistic = Callable[[Strata], Array]

_AT_ONCE = 4_000_000  # numbers of resampled scores in memory


@dataclass(frozen=True)
class Resampling:
    """How intervals are found."""

    resamples: int  # >= 1
    level: float  # of confidence, in (0, 1)
    seed: int


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval; None where a single run shows no spread."""

    value: float
    low: float | None
    high: float | None


def iqm(strata: Strata) -> Array:
    """Interquartile mean: the mean of the middle half of all runs, those of all environments together.

    With N scores x_(1) <= ... <= x_(N) and k = floor(N / 4),

        IQM = 1 / (N - 2k) sum_{i = k+1}^{N-k} x_(i)

    so that it is the mean for fewer than four runs. Source: Agarwal et al., 2021, section 4.3.

    Args:
        strata: [R, n, ...] each, in units of the score.

    Returns:
        [R, ...], in units of the score.
    """
    scores = np.sort(np.concatenate(list(strata), axis=1), axis=1)
    cut = scores.shape[1] // 4
    return np.asarray(scores[:, cut : scores.shape[1] - cut].mean(axis=1), dtype=np.float64)


def mean(strata: Strata) -> Array:
    """Mean over environments of the mean over runs; args and returns as in `iqm`."""
    return np.asarray(np.mean([scores.mean(axis=1) for scores in strata], axis=0), dtype=np.float64)


def median(strata: Strata) -> Array:
    """Median over environments of the mean over runs, as the field reports it; of one environment, over its runs.

    Args and returns as in `iqm`.
    """
    if len(strata) == 1:
        return np.asarray(np.median(strata[0], axis=1), dtype=np.float64)
    return np.asarray(np.median([scores.mean(axis=1) for scores in strata], axis=0), dtype=np.float64)


def value(strata: Strata, statistic: Statistic) -> Array:
    """The statistic of the scores themselves: strata [n, ...] each -> [...]."""
    return np.asarray(statistic([scores[None] for scores in strata])[0])


def interval(strata: Strata, statistic: Statistic, how: Resampling) -> tuple[Array, Array]:
    """Stratified percentile bootstrap: runs are drawn anew, with replacement, within each environment.

    With T*_1 ... T*_R the statistic of R such draws, the interval is between their (1 - level) / 2 and (1 + level) / 2
    quantiles. It is too narrow for few runs (docs/compare.md has its coverage). The draws follow from the seed and the
    scores alone, not from the order of the runs. Source: Agarwal et al., 2021, section 4.1; Efron, 1979.

    Args:
        strata: [n, ...] each, n >= 1, in units of the score.
        statistic: of resampled strata.
        how: draws, level and seed.

    Returns:
        Low and high ends [...], in units of the score.
    """
    ordered = [scores[np.lexsort(scores.reshape(len(scores), -1).T)] for scores in strata]
    generator = np.random.default_rng(how.seed)
    chunk = max(1, _AT_ONCE // sum(scores.size for scores in ordered))
    found = []
    for start in range(0, how.resamples, chunk):
        draws = min(chunk, how.resamples - start)
        drawn = [s[generator.integers(len(s), size=(draws, len(s)))] for s in ordered]
        found.append(statistic(drawn))
    tail = (1 - how.level) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail], axis=0)
    return low, high


def estimate(strata: Strata, statistic: Statistic, how: Resampling) -> Estimate:
    """A statistic of scores [n] each, with its interval where every environment has two runs or more."""
    centre = float(value(strata, statistic))
    if min(len(scores) for scores in strata) < 2:
        return Estimate(centre, None, None)
    low, high = interval(strata, statistic, how)
    return Estimate(centre, float(low), float(high))


def profile(strata: Strata, thresholds: Array) -> list[Array]:
    """The strata of a performance profile, whose `mean` is F(tau), the share of runs that score above tau:

        F(tau) = 1/M sum_m 1/n_m sum_i 1[x_mi > tau].

    Source: Agarwal et al., 2021, section 4.2.

    Args:
        strata: [n] each, in units of the score.
        thresholds: tau [G], in the same.

    Returns:
        1[x > tau], [n, G] each, 0 or 1.
    """
    return [(scores[:, None] > thresholds).astype(np.float64) for scores in strata]


def probability_of_improvement(x: Strata, y: Strata, how: Resampling) -> Estimate:
    """How likely a run of X scores more than a run of Y on the same environment, a tie counting half:

        P(X > Y) = 1/M sum_m 1/(n_m k_m) sum_ij (1[x_mi > y_mj] + 1/2 1[x_mi = y_mj]).

    Source: Agarwal et al., 2021, section 4.3 (Mann and Whitney's U over n k).

    Args:
        x, y: scores of the two groups on the same M environments, [n] and [k] each, in the same units.
        how: of the interval, for which the runs of both groups are drawn anew.

    Returns:
        Shares in [0, 1].
    """
    split = len(x)

    def wins(strata: Strata) -> Array:
        shares = [
            (np.sign(a[:, :, None] - b[:, None, :]).mean(axis=(1, 2)) + 1) / 2
            for a, b in zip(strata[:split], strata[split:], strict=True)
        ]
        return np.asarray(np.mean(shares, axis=0), dtype=np.float64)

    return estimate([*x, *y], wins, how)


def permutation_test(x: Strata, y: Strata, draws: int, seed: int) -> float:
    """How often groups dealt out at random differ in their means as much as these two do.

    With d = 1/M sum_m (mean x_m - mean y_m), runs are dealt anew within each environment. Of one environment with at
    most `draws` ways to deal, all are taken and p = share of |d*| >= |d|; else p = (1 + hits) / (1 + draws).
    With three runs a side p is 0.1 at least. Source: Fisher, 1935; Phipson and Smyth, 2010, for the added ones;
    Colas et al., "A hitchhiker's guide to statistical comparisons of reinforcement learning algorithms", 2019.

    Args:
        x, y: scores on the same M environments, [n] and [k] each.
        draws: ways to deal that are tried, >= 1.
        seed: of these.

    Returns:
        p, two-sided, in (0, 1].
    """
    pooled = [np.concatenate([a, b]) for a, b in zip(x, y, strict=True)]
    sizes = [len(a) for a in x]
    seen = abs(np.mean([a.mean() - b.mean() for a, b in zip(x, y, strict=True)]))
    slack = 1e-12 * max(1.0, *(float(np.abs(scores).max()) for scores in pooled))
    if len(pooled) == 1 and math.comb(len(pooled[0]), sizes[0]) <= draws:
        chosen = np.array(list(combinations(range(len(pooled[0])), sizes[0])))
        return float((np.abs(_gaps(pooled[0], chosen)) >= seen - slack).mean())
    generator = np.random.default_rng(seed)
    dealt = np.zeros(draws)
    for scores, size in zip(pooled, sizes, strict=True):
        order = generator.permuted(np.tile(np.arange(len(scores)), (draws, 1)), axis=1)
        dealt += _gaps(scores, order[:, :size]) / len(pooled)
    return float((1 + (np.abs(dealt) >= seen - slack).sum()) / (1 + draws))


def _gaps(scores: Array, chosen: NDArray[np.int64]) -> Array:
    """Mean of the chosen less mean of the others, for each row of choices."""
    taken = scores[chosen].sum(axis=1)
    size, others = chosen.shape[1], len(scores) - chosen.shape[1]
    return np.asarray(taken / size - (scores.sum() - taken) / others, dtype=np.float64)


def seeds_to_separate(x: Array, y: Array, alpha: float, power: float) -> int | None:
    """Runs a group needs for Welch's test to tell two groups apart, if they differ as much as they do here:

        n = (z_{1 - alpha/2} + z_power)^2 (s_x^2 + s_y^2) / (mean x - mean y)^2 + z_{1 - alpha/2}^2 / 4

    rounded up; the last term stands for the t distribution's wider tails. The difference seen is taken for the true
    one, which in few runs it is not: the number is a plan, to be looked at again. Source: Colas et al., "How many
    random seeds?", 2018, for the test; Guenther, 1981, for the last term.

    Args:
        x, y: scores [n] and [k], two or more each.
        alpha: two-sided significance, in (0, 1).
        power: probability of seeing the difference, in (0, 1).

    Returns:
        Runs in each group, all told, >= 2; None where the means are equal: no number of runs tells them apart.
    """
    gap = float(x.mean() - y.mean())
    if gap == 0:
        return None
    normal = NormalDist()
    tail = normal.inv_cdf(1 - alpha / 2)
    spread = float(x.var(ddof=1) + y.var(ddof=1))
    return max(2, math.ceil((tail + normal.inv_cdf(power)) ** 2 * spread / gap**2 + tail**2 / 4))
