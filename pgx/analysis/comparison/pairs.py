"""Two groups of runs beside each other."""

from collections.abc import Sequence

import numpy as np

from pgx.analysis.comparison.result import Group, Pair
from pgx.analysis.statistics import (
    Resampling,
    permutation_test,
    probability_of_improvement,
    seeds_to_separate,
)

ALPHA = 0.05  # two-sided significance of tests
POWER = 0.8  # of the plan for more seeds
DEALS = 20_000  # ways of dealing runs to two groups that the permutation test tries
ALL_PAIRS = 6  # groups; of more, each is held against the best alone


def pairs_of(groups: Sequence[Group], how: Resampling) -> list[Pair]:
    """Each two groups, or each and the best where these were too many to read."""
    chosen = [(i, j) for i in range(len(groups)) for j in range(i + 1, len(groups))]
    if len(groups) > ALL_PAIRS:
        chosen = [(0, j) for j in range(1, len(groups))]
    return [_pair(groups[i], groups[j], how) for i, j in chosen]


def _pair(first: Group, second: Group, how: Resampling) -> Pair:
    x, y = first.scores, second.scores
    sizes = sum(map(len, x)), sum(map(len, y))
    lone = min(map(len, [*x, *y])) < 2
    return Pair(
        first=first.name,
        second=second.name,
        probability=None if lone else probability_of_improvement(x, y, how),
        gap=float(np.mean([a.mean() - b.mean() for a, b in zip(x, y, strict=True)])),
        p=None if lone else permutation_test(x, y, DEALS, how.seed),
        runs=sizes,
        needed=seeds_to_separate(x[0], y[0], ALPHA, POWER) if len(x) == 1 and not lone else None,
    )
