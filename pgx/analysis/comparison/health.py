"""The health metrics of groups, for side by side."""

from collections.abc import Sequence

import numpy as np

from pgx.analysis.reading.run import Run
from pgx.metrics import tag

KEYS = (
    "kl",
    "kl_max",
    "ess",
    "clip_fraction",
    "entropy",
    "explained_variance",
    "explained_variance_after",
    "gradient_norm",
    "step_norm",
    "predicted_gain",
    "surrogate_gain",
    "line_search_steps",
    "line_search_fraction",
    "cg_steps",
    "cg_residual",
    "epochs",
    "beta",
    "behaviour_kl",
    "critic_loss",
    "policy_lag",
    "steps_per_second",
)
LAST = 0.1  # share of training that is looked at apart


def health_of(runs: Sequence[Run], step: int) -> dict[str, tuple[float, float]]:
    """Means over runs of each run's mean over training, and over the last tenth of it.

    Args:
        runs: of a group.
        step: where training ends for this.

    Returns:
        By tag; only what some run has. The second is NaN where no run has a row in the last tenth.
    """
    found = {}
    for name in map(tag, KEYS):
        everywhere, late = [], []
        for run in runs:
            if name in run.series:
                one = run.series[name]
                everywhere.append(one.values[one.steps <= step])
                late.append(one.values[(one.steps <= step) & (one.steps > (1 - LAST) * step)])
        if any(len(values) for values in everywhere):
            found[name] = (_mean_of_means(everywhere), _mean_of_means(late))
    return found


def _mean_of_means(parts: Sequence[np.ndarray]) -> float:
    means = [float(values.mean()) for values in parts if len(values)]
    return float(np.mean(means)) if means else float("nan")
