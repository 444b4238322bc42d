"""What training costs, on axes that are fair to different rules; and a metric over each of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pgx.analysis.reading.run import Array, Run, Series
from pgx.runs.metrics import tag

POINTS = 101  # of a curve


@dataclass(frozen=True)
class Axis:
    """A cost."""

    key: str
    label: str


STEPS = Axis("steps", "environment steps")
SECONDS = Axis("seconds", "wall-clock seconds")
GRADIENT_STEPS = Axis("gradient_steps", "gradient steps")
FISHER_PRODUCTS = Axis("fisher_products", "Fisher-vector products")
AXES = (STEPS, SECONDS, GRADIENT_STEPS, FISHER_PRODUCTS)

_EACH_UPDATE = {GRADIENT_STEPS: "gradient_steps", FISHER_PRODUCTS: "cg_steps"}  # keys of counts of one update


def spent(run: Run, axis: Axis) -> Series | None:
    """What a run has spent by each of its rows; None where it does not tell.

    A count that rows have of their own update is added up; where logger.every spaces rows out, each stands for the
    updates since the one before, so that the sum is an estimate then (`exact` tells).
    """
    if axis == SECONDS:
        return run.series.get(tag("seconds"))
    iterations = run.series.get(tag("iteration"))
    if axis == STEPS:
        every = max(run.series.values(), key=lambda one: len(one.steps)).steps
        return Series(every, every)
    each = run.series.get(tag(_EACH_UPDATE[axis]))
    if each is None or iterations is None:
        return None
    counts = np.zeros(len(iterations.steps))
    index = np.searchsorted(iterations.steps, each.steps)
    known = index < len(counts)
    counts[index[known]] = each.values[known]
    return Series(iterations.steps, np.cumsum(counts * np.diff(iterations.values, prepend=0.0)))


def exact(run: Run, axis: Axis) -> bool:
    """Whether what `spent` says was counted, rather than estimated between rows."""
    iterations = run.series.get(tag("iteration"))
    counted = axis not in _EACH_UPDATE
    return counted or (iterations is not None and bool((np.diff(iterations.values, prepend=0.0) == 1).all()))


def spent_at(run: Run, axis: Axis, steps: Array) -> Array | None:
    """What a run had spent at environment steps [G], evenly between two rows; None where it does not tell."""
    cost = spent(run, axis)
    if cost is None:
        return None
    rows, values = (np.concatenate([[0.0], column]) for column in (cost.steps, cost.values))
    return np.asarray(np.interp(steps, rows, values), dtype=np.float64)


def on_grid(curves: Sequence[Series], end: float) -> tuple[Array, Array]:
    """Return the curves of several runs at the same steps, each linear between its rows.

    Args:
        curves: of n runs.
        end: the last step; no curve begins after it.

    Returns:
        The steps [POINTS], from the first at which all have a value; and the values [n, POINTS].
    """
    grid = np.linspace(max(float(one.steps[0]) for one in curves), end, POINTS)
    return grid, np.stack([one.interpolate(grid) for one in curves])
