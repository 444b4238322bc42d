"""The health metrics of groups, for side by side."""

from collections.abc import Sequence

import numpy as np

from pgx.analysis.comparison.result import Curve
from pgx.analysis.reading.run import Array, Run, Series
from pgx.runs.metrics import tag

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
LAST = 0.1  # fraction of training in the second column
DRAWN = (
    "kl",
    "ess",
    "clip_fraction",
    "entropy",
    "explained_variance",
    "gradient_norm",
)  # keys whose curves a report shows


def health_of(runs: Sequence[Run], step: int) -> dict[str, tuple[float, float]]:
    """Return the means over runs of each run's mean over training, and over its last tenth.

    A run without a row in the last tenth contributes the value between the rows before and after `step`.

    Args:
        runs: of a group.
        step: the end of training for this purpose, in environment steps.

    Returns:
        Both means by tag, for the tags of at least one run. The second is NaN if no run has a row in the last tenth
        or later.
    """
    found = {}
    for name in map(tag, KEYS):
        everywhere, late = [], []
        for run in runs:
            if name in run.series:
                one = run.series[name]
                everywhere.append(one.values[one.steps <= step])
                late.append(_last_tenth(one, step))
        if any(len(values) for values in everywhere):
            found[name] = (_mean_of_means(everywhere), _mean_of_means(late))
    return found


def _last_tenth(one: Series, step: int) -> Array:
    inside = (one.steps <= step) & (one.steps > (1 - LAST) * step)
    if not inside.any() and one.steps[0] <= step <= one.steps[-1]:
        return one.interpolate(np.array([float(step)]))
    return one.values[inside]


def health_curves(runs: Sequence[Run], grid: Array) -> dict[str, Curve]:
    """Return the median over runs of the metrics in `DRAWN`, at environment steps `grid` [G]; by tag.

    Runs that do not have a metric at a step are left out of its median there.
    """
    found = {}
    for name in map(tag, DRAWN):
        having = [run.series[name] for run in runs if name in run.series]
        inside = [(one.steps[0] <= grid) & (grid <= one.steps[-1]) for one in having]
        known = np.any(inside, axis=0) if having else np.zeros(len(grid), dtype=bool)
        if known.any():
            values = [
                np.where(i, one.interpolate(grid), np.nan) for one, i in zip(having, inside, strict=True)
            ]
            found[name] = Curve(grid[known], np.nanmedian(np.stack(values)[:, known], axis=0), None, None)
    return found


def _mean_of_means(parts: Sequence[np.ndarray]) -> float:
    means = [float(values.mean()) for values in parts if len(values)]
    return float(np.mean(means)) if means else float("nan")
