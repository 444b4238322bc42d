"""A comparison as figures."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from pgx.analysis.comparison.axes import AXES, STEPS, Axis
from pgx.analysis.comparison.result import Comparison, Curve, Panel
from pgx.analysis.statistics import Estimate

# Okabe and Ito's colours, which the colour-blind tell apart, but for black and yellow, which one of two backgrounds
# swallows; then the same again, dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
HEIGHT = 3.4  # inches of a panel
STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Plot:
    """A figure with its name and what it shows."""

    name: str
    caption: str
    figure: Figure


def plots_of(comparison: Comparison, panels: Sequence[Panel]) -> list[Plot]:
    """IQM curves over each cost, performance profiles, probabilities of improvement, of some or all of the panels."""
    look = _looks([group.name for panel in comparison.panels for group in panel.groups])
    band = f"interquartile mean over runs, band: {comparison.level:.0%} stratified bootstrap interval"
    plots = []
    for axis in AXES:
        having = [panel for panel in panels if any(axis in group.curves for group in panel.groups)]
        if having:
            figure = _grid(having, partial(_draw_curves, axis=axis, look=look), HEIGHT)
            plots.append(Plot(f"curves_{axis.key}", f"{comparison.metric} over {axis.label}: {band}", figure))
    figure = _grid(panels, partial(_draw_profiles, look=look), HEIGHT)
    plots.append(Plot("profiles", "Performance profiles: share of runs that score more than this", figure))
    having = [panel for panel in panels if _estimated(panel)]
    if having:
        figure = _grid(having, _draw_pairs, max(0.32 * max(len(_estimated(p)) for p in having) + 1.1, 1.8))
        plots.append(
            Plot(
                "improvement",
                "P(first > second): a run of the first scores more than one of the second",
                figure,
            )
        )
    return plots


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and line of each group, the same in all figures."""
    found: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(sorted(set(names))):
        found[name] = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": STYLES[i // len(COLOURS) % len(STYLES)],
        }
    return found


def _grid(panels: Sequence[Panel], draw: Callable[[Axes, Panel], None], height: float) -> Figure:
    """A panel each, two in a row."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, height * rows), layout="constrained")
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(panel.title, fontsize="medium")
        draw(axes, panel)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    _legend(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what it has found holds for every format
    return figure


def _legend(figure: Figure) -> None:
    """One for all panels, below them, where it hides nothing."""
    known: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    if known:
        columns = max(1, int(figure.get_figwidth() * 13 // (max(map(len, known)) + 6)))
        figure.legend(
            known.values(), known, loc="outside lower center", ncols=columns, fontsize="small", frameon=False
        )


def _draw_curves(axes: Axes, panel: Panel, axis: Axis, look: dict[str, dict[str, Any]]) -> None:
    for group in panel.groups:
        if axis in group.curves:
            _draw(axes, group.curves[axis], group.name, look)
    axes.set_xlabel(axis.label if panel.env else "share of training")
    axes.set_ylabel("IQM" if panel.env else "IQM, normalised")
    if panel.env and axis == STEPS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_profiles(axes: Axes, panel: Panel, look: dict[str, dict[str, Any]]) -> None:
    for group in panel.groups:
        _draw(axes, group.profile, group.name, look)
    axes.set_xlabel("score" if panel.env else "normalised score")
    axes.set_ylabel("share of runs above")
    axes.set_ylim(-0.03, 1.03)


def _draw(axes: Axes, curve: Curve, name: str, look: dict[str, dict[str, Any]]) -> None:
    axes.plot(curve.x, curve.y, label=name, linewidth=1.6, **look[name])
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=look[name]["color"], alpha=0.18, linewidth=0)


def _estimated(panel: Panel) -> list[tuple[str, Estimate]]:
    """Return the pairs whose probability is known, each with its label."""
    return [
        (f"{pair.first} > {pair.second}", pair.probability)
        for pair in panel.pairs
        if pair.probability is not None
    ]


def _draw_pairs(axes: Axes, panel: Panel) -> None:
    shown = _estimated(panel)[::-1]
    for row, (_, likely) in enumerate(shown):
        if likely.low is not None and likely.high is not None:
            axes.plot([likely.low, likely.high], [row, row], color=COLOURS[0], linewidth=5, alpha=0.35)
        axes.plot([likely.value], [row], "o", color=COLOURS[0], markersize=5)
    axes.set_yticks(range(len(shown)))
    axes.set_yticklabels([label for label, _ in shown], fontsize="small")
    axes.axvline(0.5, linewidth=0.8, linestyle="--", color="#888888")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.6, len(shown) - 0.4)


def png(plot: Plot) -> bytes:
    """On white."""
    out = io.BytesIO()
    plot.figure.savefig(out, format="png")
    return out.getvalue()


def svg(plot: Plot) -> str:
    """As a file of its own, text as text."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.name}):
        plot.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def inline_svg(plot: Plot) -> str:
    """For a page: no background, text in the page's colour and size that follows the width."""
    figure = plot.figure
    white = [figure.patch, *(axes.patch for axes in figure.axes)]
    for patch in white:
        patch.set_alpha(0.0)
    text = svg(plot)
    for patch in white:
        patch.set_alpha(1.0)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    # What matplotlib draws black, axes, ticks and letters, it writes either so or, for text, not at all.
    text = text.replace("#000000", "currentColor").replace("<svg ", '<svg fill="currentColor" role="img" ', 1)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 sans-serif", text)
