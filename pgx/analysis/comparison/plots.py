"""Draw a comparison: each function draws one panel into matplotlib axes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from pgx.analysis.comparison.axes import STEPS, Axis, spent_at
from pgx.analysis.comparison.health import DRAWN
from pgx.analysis.comparison.labels import label
from pgx.analysis.comparison.result import Curve, Panel
from pgx.analysis.reading.run import Array, Run
from pgx.analysis.statistics import Estimate
from pgx.runs.metrics import tag

# The palette of Okabe and Ito, which colour-blind readers can tell apart, without black and yellow, which are hard to
# see on a white or a dark background. After six groups the colours repeat with another line style.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES: tuple["Style", ...] = ("-", "--", ":", "-.")
Style = Literal["-", "--", ":", "-."]

HEALTH = tuple(map(tag, DRAWN))
LOGARITHMIC = (tag("kl"),)
WORST_EXPLAINED = -1.0  # lower end of the axis: the first updates of a critic may be far below it
MARGINS = (0.62, 0.12, 0.5, 0.15)  # inches left, right, below and above the axes of a single panel
POINTS = 301  # of a thin curve, at most


@dataclass(frozen=True)
class Look:
    """Colour and line style of a group, the same in all figures."""

    colour: str
    style: Style


Looks = Mapping[str, Look]


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Return a look for each group."""
    return {
        name: Look(COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)])
        for i, name in enumerate(sorted(set(names)))
    }


def new_axes(figure: Figure, rows: int, columns: int, number: int) -> Axes:
    """Add axes without a frame and with a light grid."""
    axes: Axes = figure.add_subplot(rows, columns, number)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    return axes


def single(draw: Callable[[Axes], None], size: tuple[float, float], names: bool) -> Figure:
    """Return a figure of one panel.

    Args:
        draw: draws the panel.
        size: width and height in inches.
        names: whether the vertical axis shows names, whose width only a layout can tell; it takes half of the time.
    """
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=size, layout="constrained" if names else None)
        draw(new_axes(figure, 1, 1, 1))
        if names:
            fix_layout(figure)
        else:
            left, right, bottom, top = MARGINS
            width, height = size
            figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return figure


def fix_layout(figure: Figure) -> None:
    """Lay the figure out once, so that it is the same in every format."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def draw_curves(axes: Axes, panel: Panel, axis: Axis, metric: str, look: Looks) -> None:
    """Draw the interquartile mean of each group with its interval, and a thin curve for each run."""
    for group in panel.groups:
        if axis not in group.curves:
            continue
        if panel.step is not None and len(group.runs) > 1:
            for run in group.runs:
                _draw_run(axes, run, metric, axis, panel.step, look[group.name])
        _draw(axes, group.curves[axis], group.name, look[group.name])
    axes.set_xlabel(axis.label if panel.env else "training (fraction)")
    axes.set_ylabel(label(metric).axis if panel.env else "normalised score")
    _short_numbers(axes)


def draw_health(axes: Axes, panel: Panel, metric: str, look: Looks) -> None:
    """Draw a health metric over environment steps: the median of each group's runs, and a thin curve for each run."""
    for group in panel.groups:
        if panel.step is not None and len(group.runs) > 1:
            for run in group.runs:
                _draw_run(axes, run, metric, STEPS, panel.step, look[group.name])
        if metric in group.health_curves:
            _draw(axes, group.health_curves[metric], group.name, look[group.name])
    drawn = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.get_lines()]
    if metric in LOGARITHMIC and any(bool((values > 0).any()) for values in drawn):
        axes.set_yscale("log", nonpositive="mask")
    if metric == tag("explained_variance"):
        axes.set_ylim(max(WORST_EXPLAINED, axes.get_ylim()[0]), 1.05)
    axes.set_xlabel(STEPS.label)
    axes.set_ylabel(label(metric).axis)
    _short_numbers(axes)


def draw_scores(axes: Axes, panel: Panel, metric: str, look: Looks) -> None:
    """Draw each run's score as a dot, and the interquartile mean of each group with its interval."""
    for row, group in enumerate(reversed(panel.groups)):
        colour = look[group.name].colour
        scores = np.concatenate(list(group.scores))
        if group.iqm.low is not None and group.iqm.high is not None:
            axes.plot([group.iqm.low, group.iqm.high], [row, row], color=colour, linewidth=9, alpha=0.3)
        axes.plot(scores, np.full(len(scores), row), "o", color=colour, markersize=3.5, alpha=0.7)
        axes.plot([group.iqm.value], [row], "|", color=colour, markersize=16, markeredgewidth=2.5)
    axes.set_yticks(range(len(panel.groups)), [group.name for group in reversed(panel.groups)])
    axes.set_ylim(-0.6, len(panel.groups) - 0.4)
    axes.set_xlabel(label(metric).axis if panel.env else "normalised score")


def draw_profiles(axes: Axes, panel: Panel, metric: str, look: Looks) -> None:
    """Draw the share of each group's runs that score more than a threshold."""
    for group in panel.groups:
        _draw(axes, group.profile, group.name, look[group.name])
    axes.set_xlabel(label(metric).axis if panel.env else "normalised score")
    axes.set_ylabel("runs above (fraction)")
    axes.set_ylim(-0.03, 1.03)


def estimated(panel: Panel) -> list[tuple[str, Estimate]]:
    """Return the pairs whose probability is known, each with its label."""
    return [
        (f"{pair.first} > {pair.second}", pair.probability)
        for pair in panel.pairs
        if pair.probability is not None
    ]


def draw_pairs(axes: Axes, panel: Panel) -> None:
    """Draw the probability that a run of the first group scores more than a run of the second."""
    shown = estimated(panel)[::-1]
    for row, (_, likely) in enumerate(shown):
        if likely.low is not None and likely.high is not None:
            axes.plot([likely.low, likely.high], [row, row], color=COLOURS[0], linewidth=5, alpha=0.35)
        axes.plot([likely.value], [row], "o", color=COLOURS[0], markersize=5)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.axvline(0.5, linewidth=0.8, linestyle="--", color="#888888")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("probability")


def _draw(axes: Axes, curve: Curve, name: str, look: Look) -> None:
    axes.plot(curve.x, curve.y, label=name, linewidth=1.8, color=look.colour, linestyle=look.style)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=look.colour, alpha=0.18, linewidth=0)


def _draw_run(axes: Axes, run: Run, metric: str, axis: Axis, step: int, look: Look) -> None:
    """Draw a run's rows up to a step as a thin curve."""
    steps = _rows_until(run, metric, step)
    spent = spent_at(run, axis, steps)
    if spent is not None:
        values = run.series[metric].interpolate(steps)
        axes.plot(spent, values, linewidth=0.7, alpha=0.4, color=look.colour, linestyle=look.style)


def _rows_until(run: Run, metric: str, step: int) -> Array:
    """Return the steps of a run's finite rows up to a step, and the step itself; at most `POINTS` of them."""
    if metric not in run.series:
        return np.zeros(0)
    one = run.series[metric]
    steps = one.steps[(one.steps < step) & np.isfinite(one.values)]
    if len(one.steps) and one.steps[0] <= step <= one.steps[-1]:
        steps = np.append(steps, float(step))
    if len(steps) <= POINTS:
        return steps
    return np.asarray(steps[np.linspace(0, len(steps) - 1, POINTS).round().astype(int)])


def _short_numbers(axes: Axes) -> None:
    """Write 20k for 20000 on axes that reach as far."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if max(abs(low), abs(high)) >= 10_000:
            axis.set_major_formatter(EngFormatter(sep=""))
