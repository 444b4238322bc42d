"""A group of runs: statistics of its scores, its curves, what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pgx.analysis.comparison.axes import AXES, STEPS, Axis, exact, spent_at
from pgx.analysis.comparison.health import health_curves, health_of
from pgx.analysis.comparison.result import Cost, Curve, Group
from pgx.analysis.reading.run import Array, Run
from pgx.analysis.statistics import Resampling, Strata, estimate, interval, iqm, mean, median, profile, value

THRESHOLDS = 101  # of a profile
Curves = Mapping[Axis, Curve]


def make_group(
    name: str,
    runs: Sequence[Run],
    strata: Strata,
    curves: Curves,
    thresholds: Array,
    step: int | None,
    how: Resampling,
) -> Group:
    """A group from its runs' curves [n, G], one stratum an environment."""
    scores = [stratum[:, -1] for stratum in strata]
    return Group(
        name=name,
        runs=runs,
        scores=scores,
        iqm=estimate(scores, iqm, how),
        median=estimate(scores, median, how),
        mean=estimate(scores, mean, how),
        area=estimate([stratum.mean(axis=1) for stratum in strata], iqm, how),
        curves=curves,
        run_curves=strata,
        profile=_profile(scores, thresholds, how),
        health=health_of(runs, step) if step is not None else {},
        health_curves=health_curves(runs, curves[STEPS].x) if step is not None else {},
        costs=_costs(runs, step) if step is not None else {},
    )


def curve_of(x: Array, strata: Strata, how: Resampling) -> Curve:
    centre = value(strata, iqm)
    if min(len(stratum) for stratum in strata) < 2:
        return Curve(x, centre, None, None)
    return Curve(x, centre, *interval(strata, iqm, how))


def over_costs(runs: Sequence[Run], curve: Curve) -> Curves:
    """A curve over environment steps, and over each cost that all of its runs tell: their median at each step.

    The median, since a run that had to wait (for a compiler, for other runs) is not what the others cost.
    """
    found = {}
    for axis in AXES:
        told = [cost for run in runs if (cost := spent_at(run, axis, curve.x)) is not None]
        if len(told) == len(runs):
            found[axis] = replace(curve, x=curve.x if axis == STEPS else np.median(told, axis=0))
    return found


def _profile(scores: Strata, thresholds: Array, how: Resampling) -> Curve:
    above = profile(scores, thresholds)
    centre = value(above, mean)
    if min(len(stratum) for stratum in scores) < 2:
        return Curve(thresholds, centre, None, None)
    return Curve(thresholds, centre, *interval(above, mean, how))


def thresholds_for(scores: Sequence[float]) -> Array:
    low, high = min(scores), max(scores)
    margin = 0.02 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, THRESHOLDS)


def _costs(runs: Sequence[Run], step: int) -> dict[Axis, Cost]:
    """What the runs had spent at a step, on the mean, of each cost that all of them tell; evenly between two rows."""
    found = {}
    for axis in AXES:
        told = [cost for run in runs if (cost := spent_at(run, axis, np.array([step]))) is not None]
        if len(told) == len(runs):
            found[axis] = Cost(float(np.mean(told)), all(exact(run, axis) for run in runs))
    return found
