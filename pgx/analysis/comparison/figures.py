"""A comparison as figures in files, and figures as SVG and PNG."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pgx.analysis.comparison.axes import AXES
from pgx.analysis.comparison.labels import label
from pgx.analysis.comparison.plots import (
    COLOURS,
    HEALTH,
    draw_curves,
    draw_health,
    draw_pairs,
    draw_profiles,
    draw_scores,
    estimated,
    fix_layout,
    looks,
    new_axes,
)
from pgx.analysis.comparison.result import Comparison, Panel

HEIGHT = 3.4  # inches of a panel
COLUMNS = 2


@dataclass(frozen=True)
class Plot:
    """A figure with the name of its files."""

    name: str
    figure: Figure


def plots_of(comparison: Comparison) -> list[Plot]:
    """Return the figures of a comparison, each with a panel for every environment."""
    panels, metric = comparison.panels, comparison.metric
    look = looks([group.name for panel in panels for group in panel.groups])
    plots = []
    for axis in AXES:
        having = [panel for panel in panels if any(axis in group.curves for group in panel.groups)]
        if having:
            draw = partial(draw_curves, axis=axis, metric=metric, look=look)
            plots.append(
                Plot(f"curves_{axis.key}", _grid([(p.title, partial(draw, panel=p)) for p in having]))
            )
    plots.append(_one_each("scores", panels, partial(draw_scores, metric=metric, look=look)))
    plots.append(_one_each("profiles", panels, partial(draw_profiles, metric=metric, look=look)))
    if paired := [panel for panel in panels if estimated(panel)]:
        height = max(0.32 * max(len(estimated(panel)) for panel in paired) + 1.1, 1.8)
        plots.append(_one_each("improvement", paired, draw_pairs, height))
    health = [
        (f"{panel.env}: {label(tag).phrase}", partial(draw_health, panel=panel, metric=tag, look=look))
        for panel in panels
        for tag in health_tags(panel)
    ]
    return [*plots, Plot("health", _grid(health))] if health else plots


def health_tags(panel: Panel) -> list[str]:
    """Return the health metrics that some run of a panel has."""
    return [tag for tag in HEALTH if any(tag in group.health_curves for group in panel.groups)]


def _one_each(name: str, panels: Sequence[Panel], draw: Callable[..., None], height: float = HEIGHT) -> Plot:
    return Plot(name, _grid([(panel.title, partial(draw, panel=panel)) for panel in panels], height))


def _grid(drawn: Sequence[tuple[str, Callable[[Axes], None]]], height: float = HEIGHT) -> Figure:
    """Return a figure of panels with titles, two in a row, with one legend below."""
    columns = min(COLUMNS, len(drawn))
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
    """Return an SVG element for a page: no background, text in the page's colour, as wide as its container.

    Colours of groups are the variables --group-0, --group-1, ... of the page's style sheet.

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
    text = re.sub(r'<g id="[^"]+"', "<g", text)  # the same in every figure
    for number, colour in enumerate(COLOURS):
        text = re.sub(colour, f"var(--group-{number})", text, flags=re.IGNORECASE)
    # Matplotlib writes black axes and ticks as #000000 and black text without a colour.
    text = text.replace("#000000", "currentColor")
    text = text.replace("<svg ", f'<svg fill="currentColor" role="img" aria-label="{escape(described)}" ', 1)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
