"""Statistics of scores over seeds, with intervals and tests.

The scores of a group come in strata, one array per environment: [n] scores of n runs, or [n, G] for curves with G
points. Source of all but the tests: Agarwal et al., "Deep reinforcement learning at the edge of the statistical
precipice", 2021.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Strata = Sequence[Array]  # one array [n, ...] per environment

# From resampled strata [R, n, ...] to the statistic of each resample [R, ...].
Statistic = Callable[[Strata], Array]

_AT_ONCE = 4_000_000  # resampled scores in memory


@dataclass(frozen=True)
class Resampling:
    """Parameters of the bootstrap.

    Args:
        resamples: >= 1.
        level: confidence level, in (0, 1).
        seed: of the resamples.
    """

    resamples: int
    level: float
    seed: int


@dataclass(frozen=True)
class Estimate:
    """Statistic with its interval.

    Args:
        value: of the statistic.
        low, high: ends of the interval; None: an environment has a single run.
    """

    value: float
    low: float | None
    high: float | None


def iqm(strata: Strata) -> Array:
    """Return the interquartile mean: the mean of the middle half of the scores of all environments together.

    With N scores x_(1) <= ... <= x_(N) and k = floor(N / 4),

        IQM = 1 / (N - 2k) sum_{i = k+1}^{N-k} x_(i).

    For fewer than four runs it is the mean. Source: Agarwal et al., 2021, section 4.3.

    Args:
        strata: [R, n, ...] each, in units of the score.

    Returns:
        [R, ...], in units of the score.
    """
    scores = np.sort(np.concatenate(list(strata), axis=1), axis=1)
    cut = scores.shape[1] // 4
    return np.asarray(scores[:, cut : scores.shape[1] - cut].mean(axis=1), dtype=np.float64)


def mean(strata: Strata) -> Array:
    """Return the mean over environments of the mean over runs; arguments and result as in `iqm`."""
    return np.asarray(np.mean([scores.mean(axis=1) for scores in strata], axis=0), dtype=np.float64)


def median(strata: Strata) -> Array:
    """Return the median over environments of the mean over runs; with one environment, the median over runs.

    Arguments and result as in `iqm`.
    """
    if len(strata) == 1:
        return np.asarray(np.median(strata[0], axis=1), dtype=np.float64)
    return np.asarray(np.median([scores.mean(axis=1) for scores in strata], axis=0), dtype=np.float64)


def value(strata: Strata, statistic: Statistic) -> Array:
    """Return the statistic of the scores themselves: strata [n, ...] each -> [...]."""
    return np.asarray(statistic([scores[None] for scores in strata])[0])


def interval(strata: Strata, statistic: Statistic, resampling: Resampling) -> tuple[Array, Array]:
    """Return the stratified percentile bootstrap interval: runs are resampled within each environment.

    With T*_1 ... T*_R the statistic of R resamples, the interval is between their (1 - level) / 2 and (1 + level) / 2
    quantiles. It is too narrow for few runs (docs/compare.md has its coverage). The resamples depend on the seed and
    the scores only, not on the order of the runs. Source: Agarwal et al., 2021, section 4.1; Efron, 1979.

    Args:
        strata: [n, ...] each, n >= 1, in units of the score.
        statistic: of resampled strata.
        resampling: resamples, level and seed.

    Returns:
        Low and high ends [...], in units of the score.
    """
    ordered = [scores[np.lexsort(scores.reshape(len(scores), -1).T)] for scores in strata]
    generator = np.random.default_rng(resampling.seed)
    chunk = max(1, _AT_ONCE // sum(scores.size for scores in ordered))
    found = []
    for start in range(0, resampling.resamples, chunk):
        draws = min(chunk, resampling.resamples - start)
        drawn = [s[generator.integers(len(s), size=(draws, len(s)))] for s in ordered]
        found.append(statistic(drawn))
    tail = (1 - resampling.level) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail], axis=0)
    return low, high


def estimate(strata: Strata, statistic: Statistic, resampling: Resampling) -> Estimate:
    """Return a statistic of scores [n] each, with its interval if every environment has at least two runs."""
    centre = float(value(strata, statistic))
    if min(len(scores) for scores in strata) < 2:
        return Estimate(centre, None, None)
    low, high = interval(strata, statistic, resampling)
    return Estimate(centre, float(low), float(high))


def profile(strata: Strata, thresholds: Array) -> list[Array]:
    """Return the strata of a performance profile. Their `mean` is F(tau), the fraction of runs that score above tau:

        F(tau) = 1/M sum_m 1/n_m sum_i 1[x_mi > tau].

    Source: Agarwal et al., 2021, section 4.2.

    Args:
        strata: [n] each, in units of the score.
        thresholds: tau [G], in units of the score.

    Returns:
        1[x > tau], [n, G] each, 0 or 1.
    """
    return [(scores[:, None] > thresholds).astype(np.float64) for scores in strata]


def probability_of_improvement(x: Strata, y: Strata, resampling: Resampling) -> Estimate:
    """Return the probability that a run of X scores more than a run of Y on the same environment; a tie counts half:

        P(X > Y) = 1/M sum_m 1/(n_m k_m) sum_ij (1[x_mi > y_mj] + 1/2 1[x_mi = y_mj]).

    Source: Agarwal et al., 2021, section 4.3 (Mann and Whitney's U over n k).

    Args:
        x, y: scores of the two groups on the same M environments, [n] and [k] each, in the same units.
        resampling: parameters of the interval, for which the runs of both groups are resampled.

    Returns:
        Probabilities in [0, 1].
    """
    split = len(x)

    def wins(strata: Strata) -> Array:
        fractions = [
            (np.sign(a[:, :, None] - b[:, None, :]).mean(axis=(1, 2)) + 1) / 2
            for a, b in zip(strata[:split], strata[split:], strict=True)
        ]
        return np.asarray(np.mean(fractions, axis=0), dtype=np.float64)

    return estimate([*x, *y], wins, resampling)


def permutation_test(x: Strata, y: Strata, draws: int, seed: int) -> float:
    """Return how often random permutations of the runs give a difference of the means as large as the observed one.

    With d = 1/M sum_m (mean x_m - mean y_m), runs are permuted within each environment. With one environment and at
    most `draws` permutations all are tried, and p = fraction of |d*| >= |d|; else p = (1 + hits) / (1 + draws).
    With three runs per group p is at least 0.1. Source: Fisher, 1935; Phipson and Smyth, 2010, for the added ones;
    Colas et al., "A hitchhiker's guide to statistical comparisons of reinforcement learning algorithms", 2019.

    Args:
        x, y: scores on the same M environments, [n] and [k] each.
        draws: number of permutations, >= 1.
        seed: of the permutations.

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
    """Return the mean of the chosen scores minus the mean of the others, for each row of choices."""
    taken = scores[chosen].sum(axis=1)
    size, others = chosen.shape[1], len(scores) - chosen.shape[1]
    return np.asarray(taken / size - (scores.sum() - taken) / others, dtype=np.float64)


def seeds_to_separate(x: Array, y: Array, alpha: float, power: float) -> int | None:
    """Return the number of runs per group that Welch's test needs to detect a difference of this size:

        n = (z_{1 - alpha/2} + z_power)^2 (s_x^2 + s_y^2) / (mean x - mean y)^2 + z_{1 - alpha/2}^2 / 4

    rounded up; the last term accounts for the wider tails of the t distribution. The observed difference is taken as
    the true one, which is inaccurate for few runs: the number is a plan, to be revised with more runs. Source: Colas et
    al., "How many random seeds?", 2018, for the test; Guenther, 1981, for the last term.

    Args:
        x, y: scores [n] and [k], two or more each.
        alpha: two-sided significance, in (0, 1).
        power: probability of detecting the difference, in (0, 1).

    Returns:
        Total number of runs in each group, >= 2; None if the means are equal.
    """
    gap = float(x.mean() - y.mean())
    if gap == 0:
        return None
    normal = NormalDist()
    tail = normal.inv_cdf(1 - alpha / 2)
    spread = float(x.var(ddof=1) + y.var(ddof=1))
    return max(2, math.ceil((tail + normal.inv_cdf(power)) ** 2 * spread / gap**2 + tail**2 / 4))
