"""Figures of a comparison, as matplotlib figures, SVG and PNG."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from pgx.analysis.comparison import (
    AXES,
    PLOTTED_HEALTH_KEYS,
    STEPS_AXIS,
    Axis,
    Comparison,
    Curve,
    Panel,
    cost_at,
    label,
)
from pgx.analysis.reading import RecordedRun
from pgx.analysis.statistics import Array, Estimate
from pgx.runs.metrics import tag

STYLE_SHEET = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --line: #d1d9e0; --ground: #ffffff; --head: #f6f8fa;
  --group-0: #0072b2; --group-1: #c84f00; --group-2: #00805c; --group-3: #b8578f; --group-4: #b37400;
  --group-5: #2a8fc4;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d; --ground: #0d1117; --head: #151b23;
    --group-0: #4aa8e0; --group-1: #ff8a4c; --group-2: #2fc79a; --group-3: #e39ac2; --group-4: #f0b93a;
    --group-5: #9ad8ff;
  }
}
body { margin: 0 auto; max-width: 90rem; padding: 1rem clamp(1rem, 2.5vw, 3rem); background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
section { border-bottom: 1px solid var(--line); padding-bottom: 1.5rem; margin-bottom: 1.5rem; }
h1, h2 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: clamp(1.4rem, 1rem + 1.6vw, 2.1rem); margin: 0 0 .8rem; }
h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 0; }
.kicker { margin: 0 0 .4rem; }
p, li { color: var(--dim); overflow-wrap: anywhere; margin: .2rem 0; }
.details { max-width: 60rem; } .details p { color: var(--ink); margin: .35rem 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; margin: 1rem 0 0; padding: 0; }
.legend li { color: var(--ink); } .legend svg { vertical-align: middle; } small { color: var(--dim); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1rem 1.5rem;
  margin-top: .8rem; }
figure { margin: 0; min-width: 0; } figcaption { font-size: .875rem; font-weight: 600; margin-bottom: .2rem; }
figure svg { display: block; width: 100%; height: auto; }
.large { display: none; }
@media (min-width: 56rem) {
  .two { grid-column: span 2; } .large { display: block; } .small { display: none; }
}
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th { background: var(--head); font-weight: 600; }
th.text, td.text { text-align: left; }
"""


# Palette of Okabe and Ito for color-blind readers, without black and yellow, which have little contrast on a dark or a
# white background. After six groups the colors repeat with another line style.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINE_STYLES: tuple["LineStyle", ...] = ("-", "--", ":", "-.")
LineStyle = Literal["-", "--", ":", "-."]

HEALTH_TAGS = tuple(map(tag, PLOTTED_HEALTH_KEYS))
_LOGARITHMIC = (tag("kl"),)
_MIN_EXPLAINED_VARIANCE = -1.0  # lower end of the axis: the first updates of a critic may be far below it
_MARGINS = (0.62, 0.12, 0.5, 0.15)  # inches left, right, below and above the axes of a single panel
_MAX_RUN_POINTS = 301  # maximum number of points of a thin curve


@dataclass(frozen=True)
class GroupStyle:
    """Color and line style of a group, the same in all figures."""

    color: str
    line: LineStyle


GroupStyles = Mapping[str, GroupStyle]


def group_styles(names: Sequence[str]) -> dict[str, GroupStyle]:
    """Return a style for each group."""
    return {
        name: GroupStyle(COLORS[i % len(COLORS)], _LINE_STYLES[i // len(COLORS) % len(_LINE_STYLES)])
        for i, name in enumerate(sorted(set(names)))
    }


_RUN_COLUMNS = 3  # panels side by side


def new_axes(figure: Figure, rows: int, columns: int, number: int) -> Axes:
    """Add axes without a frame and with a light grid."""
    axes: Axes = figure.add_subplot(rows, columns, number)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    return axes


def draw_figure(draw: Callable[[Axes], None], size: tuple[float, float], names: bool) -> Figure:
    """Return a figure of one panel.

    Args:
        draw: draws the panel.
        size: width and height in inches.
        names: whether the vertical axis shows names, whose width requires a layout, which takes half of the time.
    """
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=size, layout="constrained" if names else None)
        draw(new_axes(figure, 1, 1, 1))
        if names:
            fix_layout(figure)
        else:
            left, right, bottom, top = _MARGINS
            width, height = size
            figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return figure


def fix_layout(figure: Figure) -> None:
    """Lay the figure out once, so that it is the same in every format."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def draw_curves(axes: Axes, panel: Panel, axis: Axis, metric: str, styles: GroupStyles) -> None:
    """Draw the interquartile mean of each group with its interval, and a thin curve for each run."""
    for group in panel.groups:
        if axis not in group.curves:
            continue
        if panel.step is not None and len(group.runs) > 1:
            for run in group.runs:
                _draw_run(axes, run, metric, axis, panel.step, styles[group.name])
        _draw(axes, group.curves[axis], group.name, styles[group.name])
    axes.set_xlabel(axis.label if panel.env else "training (fraction)")
    axes.set_ylabel(label(metric).axis if panel.env else "normalized score")
    _short_numbers(axes)


def draw_health(axes: Axes, panel: Panel, metric: str, styles: GroupStyles) -> None:
    """Draw a health metric over environment steps: the median of each group's runs, and a thin curve for each run."""
    for group in panel.groups:
        if panel.step is not None and len(group.runs) > 1:
            for run in group.runs:
                _draw_run(axes, run, metric, STEPS_AXIS, panel.step, styles[group.name])
        if metric in group.health_curves:
            _draw(axes, group.health_curves[metric], group.name, styles[group.name])
    drawn = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.get_lines()]
    if metric in _LOGARITHMIC and any(bool((values > 0).any()) for values in drawn):
        axes.set_yscale("log", nonpositive="mask")
    if metric == tag("explained_variance"):
        axes.set_ylim(max(_MIN_EXPLAINED_VARIANCE, axes.get_ylim()[0]), 1.05)
    axes.set_xlabel(STEPS_AXIS.label)
    axes.set_ylabel(label(metric).axis)
    _short_numbers(axes)


def draw_scores(axes: Axes, panel: Panel, metric: str, styles: GroupStyles) -> None:
    """Draw each run's score as a dot, and the interquartile mean of each group with its interval."""
    for row, group in enumerate(reversed(panel.groups)):
        color = styles[group.name].color
        scores = np.concatenate(list(group.scores))
        if group.iqm.low is not None and group.iqm.high is not None:
            axes.plot([group.iqm.low, group.iqm.high], [row, row], color=color, linewidth=9, alpha=0.3)
        axes.plot(scores, np.full(len(scores), row), "o", color=color, markersize=3.5, alpha=0.7)
        axes.plot([group.iqm.value], [row], "|", color=color, markersize=16, markeredgewidth=2.5)
    axes.set_yticks(range(len(panel.groups)), [group.name for group in reversed(panel.groups)])
    axes.set_ylim(-0.6, len(panel.groups) - 0.4)
    axes.set_xlabel(label(metric).axis if panel.env else "normalized score")


def draw_profiles(axes: Axes, panel: Panel, metric: str, styles: GroupStyles) -> None:
    """Draw the fraction of each group's runs that score more than a threshold."""
    for group in panel.groups:
        _draw(axes, group.profile, group.name, styles[group.name])
    axes.set_xlabel(label(metric).axis if panel.env else "normalized score")
    axes.set_ylabel("runs above (fraction)")
    axes.set_ylim(-0.03, 1.03)


def pair_probabilities(panel: Panel) -> list[tuple[str, Estimate]]:
    """Return the pairs whose probability is known, each with its label."""
    return [
        (f"{pair.first} > {pair.second}", pair.probability)
        for pair in panel.pairs
        if pair.probability is not None
    ]


def draw_pairs(axes: Axes, panel: Panel) -> None:
    """Draw the probability that a run of the first group scores more than a run of the second."""
    shown = pair_probabilities(panel)[::-1]
    for row, (_, likely) in enumerate(shown):
        if likely.low is not None and likely.high is not None:
            axes.plot([likely.low, likely.high], [row, row], color=COLORS[0], linewidth=5, alpha=0.35)
        axes.plot([likely.value], [row], "o", color=COLORS[0], markersize=5)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.axvline(0.5, linewidth=0.8, linestyle="--", color="#888888")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("probability")


def _draw(axes: Axes, curve: Curve, name: str, style: GroupStyle) -> None:
    axes.plot(curve.x, curve.y, label=name, linewidth=1.8, color=style.color, linestyle=style.line)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=style.color, alpha=0.18, linewidth=0)


def _draw_run(axes: Axes, run: RecordedRun, metric: str, axis: Axis, step: int, style: GroupStyle) -> None:
    """Draw a run's rows up to a step as a thin curve."""
    steps = _rows_until(run, metric, step)
    spent = cost_at(run, axis, steps)
    if spent is not None:
        values = run.series[metric].interpolate(steps)
        axes.plot(spent, values, linewidth=0.7, alpha=0.4, color=style.color, linestyle=style.line)


def _rows_until(run: RecordedRun, metric: str, step: int) -> Array:
    """Return the steps of a run's finite rows up to a step, and the step itself; at most `POINTS` of them."""
    if metric not in run.series:
        return np.zeros(0)
    one = run.series[metric]
    steps = one.steps[(one.steps < step) & np.isfinite(one.values)]
    if len(one.steps) and one.steps[0] <= step <= one.steps[-1]:
        steps = np.append(steps, float(step))
    if len(steps) <= _MAX_RUN_POINTS:
        return steps
    return np.asarray(steps[np.linspace(0, len(steps) - 1, _MAX_RUN_POINTS).round().astype(int)])


def _short_numbers(axes: Axes) -> None:
    """Format large numbers of the axes as 20k."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if max(abs(low), abs(high)) >= 10_000:
            axis.set_major_formatter(EngFormatter(sep=""))


_PANEL_HEIGHT = 3.4  # inches of a panel
_PANEL_COLUMNS = 2


@dataclass(frozen=True)
class NamedFigure:
    """A figure with the name of its files."""

    name: str
    figure: Figure


def comparison_plots(comparison: Comparison) -> list[NamedFigure]:
    """Return the figures of a comparison, each with a panel for every environment."""
    panels, metric = comparison.panels, comparison.metric
    styles = group_styles([group.name for panel in panels for group in panel.groups])
    plots = []
    for axis in AXES:
        having = [panel for panel in panels if any(axis in group.curves for group in panel.groups)]
        if having:
            draw = partial(draw_curves, axis=axis, metric=metric, styles=styles)
            plots.append(
                NamedFigure(f"curves_{axis.key}", _grid([(p.title, partial(draw, panel=p)) for p in having]))
            )
    plots.append(_one_each("scores", panels, partial(draw_scores, metric=metric, styles=styles)))
    plots.append(_one_each("profiles", panels, partial(draw_profiles, metric=metric, styles=styles)))
    if paired := [panel for panel in panels if pair_probabilities(panel)]:
        height = max(0.32 * max(len(pair_probabilities(panel)) for panel in paired) + 1.1, 1.8)
        plots.append(_one_each("improvement", paired, draw_pairs, height))
    health = [
        (f"{panel.env}: {label(tag).phrase}", partial(draw_health, panel=panel, metric=tag, styles=styles))
        for panel in panels
        for tag in health_tags(panel)
    ]
    return [*plots, NamedFigure("health", _grid(health))] if health else plots


def health_tags(panel: Panel) -> list[str]:
    """Return the health metrics that some run of a panel has."""
    return [tag for tag in HEALTH_TAGS if any(tag in group.health_curves for group in panel.groups)]


def _one_each(
    name: str, panels: Sequence[Panel], draw: Callable[..., None], height: float = _PANEL_HEIGHT
) -> NamedFigure:
    return NamedFigure(name, _grid([(panel.title, partial(draw, panel=panel)) for panel in panels], height))


def _grid(drawn: Sequence[tuple[str, Callable[[Axes], None]]], height: float = _PANEL_HEIGHT) -> Figure:
    """Return a figure of panels with titles, two in a row, with one legend below."""
    columns = min(_PANEL_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(5.2 * columns, height * rows), layout="constrained")
    for number, (title, draw) in enumerate(drawn):
        axes = new_axes(figure, rows, columns, number + 1)
        axes.set_title(title, fontsize="medium")
        draw(axes)
    _legend(figure)
    fix_layout(figure)
    return figure


def _legend(figure: Figure) -> None:
    """Add one legend for all panels below them."""
    known: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    if known:
        columns = max(1, int(figure.get_figwidth() * 13 // (max(map(len, known)) + 6)))
        figure.legend(
            known.values(), known, loc="outside lower center", ncols=columns, fontsize="small", frameon=False
        )


class RunFigure(Figure):
    """Figure that a notebook shows without further settings."""

    def _repr_png_(self) -> bytes:
        return png(self)


def draw_run(run: RecordedRun) -> RunFigure:
    """Return the return and the health metrics of a run over environment steps.

    Args:
        run: with at least one of these metrics.
    """
    returns = [tag(key) for key in ("episode_return", "episode_return_recent", "eval_episode_return")]
    health = [name for name in map(tag, PLOTTED_HEALTH_KEYS) if name in run.series]
    panels = [[name for name in returns if name in run.series], *([name] for name in health)]
    shown = [names for names in panels if names]
    rows = math.ceil(len(shown) / _RUN_COLUMNS)
    with matplotlib.rc_context({"font.size": 9}):
        figure = RunFigure(figsize=(4.0 * _RUN_COLUMNS, _PANEL_HEIGHT * max(rows, 1)), layout="constrained")
        for number, names in enumerate(shown, start=1):
            axes = new_axes(figure, rows, _RUN_COLUMNS, number)
            for color, name in zip(COLORS, names, strict=False):
                series = run.series[name]
                axes.plot(series.steps, series.values, color=color, linewidth=1.2, label=label(name).phrase)
            axes.set_title(names[0], fontsize="medium")
            axes.set_ylabel(label(names[0]).axis)
            axes.set_xlabel(STEPS_AXIS.label)
            if len(names) > 1:
                axes.legend(frameon=False)
            _short_numbers(axes)
        figure.suptitle(f"{run.algo} on {run.env}, seed {run.seed}")
        fix_layout(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Return a PNG on white."""
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def svg(figure: Figure, name: str) -> str:
    """Return an SVG document with text as text.

    Args:
        figure: what to draw.
        name: makes the ids within the document; differs between figures of one page.
    """
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def inline_svg(figure: Figure, name: str, described: str) -> str:
    """Return an SVG element for a page: no background, text in the page's color, as wide as its container.

    Colors of groups are the variables --group-0, --group-1, ... of the page's style sheet.

    Args:
        figure: what to draw.
        name: makes the ids; unique on the page.
        described: what it shows, for screen readers.
    """
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_alpha(0.0)
    text = svg(figure, name)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'<g id="[^"]+"', "<g", text)  # ids that are equal in all figures
    for number, color in enumerate(COLORS):
        text = re.sub(color, f"var(--group-{number})", text, flags=re.IGNORECASE)
    # Matplotlib writes black axes and ticks as #000000 and black text without a color.
    text = text.replace("#000000", "currentColor")
    text = text.replace("<svg ", f'<svg fill="currentColor" role="img" aria-label="{escape(described)}" ', 1)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
