"""A comparison as one HTML file: no network, no scripts, light and dark, from phone to wide screen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

from matplotlib.axes import Axes

from pgx.analysis.comparison.axes import AXES, STEPS
from pgx.analysis.comparison.figures import health_tags, inline_svg
from pgx.analysis.comparison.labels import label
from pgx.analysis.comparison.plots import (
    COLOURS,
    Looks,
    draw_curves,
    draw_health,
    draw_pairs,
    draw_profiles,
    draw_scores,
    estimated,
    looks,
    single,
)
from pgx.analysis.comparison.result import Comparison, Panel
from pgx.analysis.comparison.style import STYLE
from pgx.analysis.comparison.tables import Table
from pgx.analysis.comparison.verdict import verdict

SMALL = (4.0, 2.9)  # inches; the page scales figures to its columns
TALL = (4.0, 3.9)
WIDE = (8.0, 3.9)  # two columns
DASHES = {"-": "none", "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}


@dataclass(frozen=True)
class Chart:
    """A figure of the page.

    Args:
        title: what it shows.
        draw: draws it.
        size: in inches.
        names: the vertical axis shows names.
    """

    title: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = SMALL
    names: bool = False


def page(comparison: Comparison, tables: Sequence[Table], command: str) -> str:
    """Return the page.

    Args:
        comparison: what it shows: a section for each panel, the verdict first, then figures.
        tables: shown below the sections.
        command: the command line that made it.
    """
    look = looks([group.name for panel in comparison.panels for group in panel.groups])
    title = verdict(comparison.panels[0], comparison.metric, comparison.level).headline
    sections = "".join(
        _section(comparison, panel, look, number) for number, panel in enumerate(comparison.panels)
    )
    shown = "".join(f"<h2>{escape(table.title)}</h2>\n{_table(table)}\n" for table in tables)
    runs = sum(len(group.runs) for panel in comparison.panels if panel.env for group in panel.groups)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<p class="kicker">pgx compare: {runs} runs, {escape(label(comparison.metric).phrase)}</p>\n'
        f"{sections}{shown}{_notes(comparison)}<h2>Command</h2>\n<p><code>{escape(command)}</code></p>\n"
        "</body>\n</html>\n"
    )


def _section(comparison: Comparison, panel: Panel, look: Looks, number: int) -> str:
    """Return a panel: verdict, legend, figures."""
    found = verdict(panel, comparison.metric, comparison.level)
    mark = "h1" if number == 0 else "h2"
    details = "".join(f"<p>{escape(line)}</p>" for line in found.details)
    parts = [f'<section>\n<{mark}>{escape(found.headline)}</{mark}>\n<div class="details">{details}</div>']
    parts.append(_legend(panel, look))
    for place, (heading, said, charts) in enumerate(_rows(comparison, panel, look)):
        if charts:
            drawn = "".join(_figure(chart, f"figure_{number}_{place}_{i}") for i, chart in enumerate(charts))
            parts.append(
                f'<h3>{escape(heading)}</h3>\n<p>{escape(said)}</p>\n<div class="charts">{drawn}</div>'
            )
    return "\n".join(parts) + "\n</section>\n"


def _rows(comparison: Comparison, panel: Panel, look: Looks) -> list[tuple[str, str, list[Chart]]]:
    """Return the rows of figures of a panel: heading, explanation, charts."""
    metric, level = comparison.metric, f"{comparison.level:.0%}"
    named = label(metric) if panel.env else None
    what = named.title if named else "Normalised score"
    curves = partial(draw_curves, panel=panel, metric=metric, look=look)
    main = [
        Chart(f"{what} over {STEPS.label if panel.env else 'training'}", partial(curves, axis=STEPS), WIDE),
        Chart("Scores", partial(draw_scores, panel=panel, metric=metric, look=look), TALL, names=True),
    ]
    costs = [
        Chart(f"{what} over {axis.label}", partial(curves, axis=axis))
        for axis in AXES
        if axis != STEPS and any(axis in group.curves for group in panel.groups)
    ]
    health = [
        Chart(label(tag).title, partial(draw_health, panel=panel, metric=tag, look=look))
        for tag in health_tags(panel)
        if panel.env
    ]
    spread = [
        Chart("Runs that score more than this", partial(draw_profiles, panel=panel, metric=metric, look=look))
    ]
    if pairs := estimated(panel):
        size = (SMALL[0], max(0.3 * len(pairs) + 1.1, 2.0))
        title = "Probability that a run of the first scores more than one of the second"
        spread.append(Chart(title, partial(draw_pairs, panel=panel), size, names=True))
    band = f"interquartile mean over runs; bands and bars: {level} bootstrap intervals"
    lines = (
        "; thin lines: single runs; dots: scores of single runs"
        if panel.env
        else "; dots: scores of single runs"
    )
    return [
        ("Learning curves and scores", f"Thick lines and marks: {band}{lines}.", main),
        ("Costs", "The same curves over other costs.", costs if panel.env else []),
        (
            "Health",
            "Measured around every update. Thick lines: median over runs; thin lines: single runs.",
            health,
        ),
        ("Distribution", f"Bands and bars: {level} bootstrap intervals.", spread),
    ]


def _figure(chart: Chart, name: str) -> str:
    """Return a figure; a wide one in two shapes, of which the style sheet shows the one that fits."""
    drawn = inline_svg(single(chart.draw, chart.size, chart.names), name, chart.title)
    kind = ""
    if chart.size == WIDE:
        kind = ' class="two"'
        small = inline_svg(single(chart.draw, SMALL, chart.names), f"{name}_small", chart.title)
        drawn = f'<div class="large">{drawn}</div><div class="small">{small}</div>'
    return f"<figure{kind}><figcaption>{escape(chart.title)}</figcaption>{drawn}</figure>\n"


def _legend(panel: Panel, look: Looks) -> str:
    items = []
    for group in panel.groups:
        colour = COLOURS.index(look[group.name].colour)
        line = (
            '<svg viewBox="0 0 28 6" width="28" height="6" aria-hidden="true"><line x1="0" y1="3" x2="28" y2="3" '
            f'style="stroke: var(--group-{colour}); stroke-width: 3" '
            f'stroke-dasharray="{DASHES[look[group.name].style]}"/></svg>'
        )
        runs = sum(map(len, group.scores))
        items.append(f"<li>{line} {escape(group.name)} <small>{runs} run{'s' * (runs > 1)}</small></li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _table(table: Table) -> str:
    def row(cells: Sequence[str], mark: str) -> str:
        kinds = [' class="text"' if i < table.left else "" for i in range(len(cells))]
        return "".join(f"<{mark}{k}>{escape(c)}</{mark}>" for k, c in zip(kinds, cells, strict=True))

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    head = f"<thead><tr>{row(table.header, 'th')}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def _notes(comparison: Comparison) -> str:
    lines = [*([comparison.rule] if comparison.rule else []), *comparison.notes]
    if not lines:
        return ""
    return "<h2>Notes</h2>\n<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>\n"
