"""Measure the coverage of the bootstrap's 95% interval of the IQM, by number of runs (docs/compare.md)."""

import numpy as np

from pgx.analysis.statistics import Resampling, estimate, iqm

DRAWS = 4000
RUNS = (3, 4, 5, 7, 10, 20, 50)


def coverage(runs: int) -> float:
    """Return the fraction of samples of a standard normal distribution (IQM 0) whose interval contains 0."""
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(DRAWS):
        found = estimate([generator.normal(size=runs)], iqm, Resampling(1000, 0.95, seed))
        assert found.low is not None and found.high is not None
        hits += found.low <= 0 <= found.high
    return hits / DRAWS


if __name__ == "__main__":
    print("| runs | " + " | ".join(map(str, RUNS)) + " |")
    print("|---|" + "--:|" * len(RUNS))
    print("| coverage | " + " | ".join(f"{coverage(runs):.0%}" for runs in RUNS) + " |")
