"""Files of a comparison: an HTML page, Markdown, JSON, CSV and figures.

The page is one file without scripts that needs no network, for light and dark mode and for all screen widths.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pgx.analysis.comparison import AXES, STEPS_AXIS, Comparison, Curve, Group, Pair, Panel, label, verdict
from pgx.analysis.plots import (
    COLORS,
    STYLE_SHEET,
    GroupStyles,
    comparison_plots,
    draw_curves,
    draw_figure,
    draw_health,
    draw_pairs,
    draw_profiles,
    draw_scores,
    group_styles,
    health_tags,
    inline_svg,
    pair_probabilities,
    png,
    svg,
)
from pgx.analysis.tables import TextTable, comparison_tables, markdown_report, more_seeds
from pgx.core.errors import UserError

_SMALL = (4.0, 2.9)  # inches; the page scales figures to its columns
_TALL = (4.0, 3.9)
_WIDE = (8.0, 3.9)  # two columns
_DASHES = {"-": "none", "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}


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
    size: tuple[float, float] = _SMALL
    names: bool = False


def html_report(comparison: Comparison, tables: Sequence[TextTable], command: str) -> str:
    """Return the page: for each panel the verdict and figures, then all tables.

    Args:
        comparison: to show.
        tables: shown below the sections.
        command: command line that repeats the comparison.
    """
    styles = group_styles([group.name for panel in comparison.panels for group in panel.groups])
    title = verdict(comparison.panels[0], comparison.metric, comparison.level).headline
    sections = "".join(
        _section(comparison, panel, styles, number) for number, panel in enumerate(comparison.panels)
    )
    shown = "".join(f"<h2>{escape(table.title)}</h2>\n{_table(table)}\n" for table in tables)
    runs = sum(len(group.runs) for panel in comparison.panels if panel.env for group in panel.groups)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n<body>\n"
        f'<p class="kicker">pgx compare: {runs} runs, {escape(label(comparison.metric).phrase)}</p>\n'
        f"{sections}{shown}{_notes(comparison)}<h2>Command</h2>\n<p><code>{escape(command)}</code></p>\n"
        "</body>\n</html>\n"
    )


def _section(comparison: Comparison, panel: Panel, styles: GroupStyles, number: int) -> str:
    """Return a panel: verdict, legend, figures."""
    found = verdict(panel, comparison.metric, comparison.level)
    mark = "h1" if number == 0 else "h2"
    details = "".join(f"<p>{escape(line)}</p>" for line in found.details)
    parts = [f'<section>\n<{mark}>{escape(found.headline)}</{mark}>\n<div class="details">{details}</div>']
    parts.append(_legend(panel, styles))
    for place, (heading, text, charts) in enumerate(_rows(comparison, panel, styles)):
        if charts:
            drawn = "".join(_figure(chart, f"figure_{number}_{place}_{i}") for i, chart in enumerate(charts))
            parts.append(
                f'<h3>{escape(heading)}</h3>\n<p>{escape(text)}</p>\n<div class="charts">{drawn}</div>'
            )
    return "\n".join(parts) + "\n</section>\n"


def _rows(comparison: Comparison, panel: Panel, styles: GroupStyles) -> list[tuple[str, str, list[Chart]]]:
    """Return the rows of figures of a panel: heading, explanation, charts."""
    metric, level = comparison.metric, f"{comparison.level:.0%}"
    named = label(metric) if panel.env else None
    quantity = named.title if named else "Normalized score"
    curves = partial(draw_curves, panel=panel, metric=metric, styles=styles)
    main = [
        Chart(
            f"{quantity} over {STEPS_AXIS.label if panel.env else 'training'}",
            partial(curves, axis=STEPS_AXIS),
            _WIDE,
        ),
        Chart("Scores", partial(draw_scores, panel=panel, metric=metric, styles=styles), _TALL, names=True),
    ]
    costs = [
        Chart(f"{quantity} over {axis.label}", partial(curves, axis=axis))
        for axis in AXES
        if axis != STEPS_AXIS and any(axis in group.curves for group in panel.groups)
    ]
    health = [
        Chart(label(tag).title, partial(draw_health, panel=panel, metric=tag, styles=styles))
        for tag in health_tags(panel)
        if panel.env
    ]
    spread = [
        Chart(
            "Fraction of runs above a score",
            partial(draw_profiles, panel=panel, metric=metric, styles=styles),
        )
    ]
    if pairs := pair_probabilities(panel):
        size = (_SMALL[0], max(0.3 * len(pairs) + 1.1, 2.0))
        title = "Probability that a run of the first group scores more than a run of the second"
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
    drawn = inline_svg(draw_figure(chart.draw, chart.size, chart.names), name, chart.title)
    kind = ""
    if chart.size == _WIDE:
        kind = ' class="two"'
        small = inline_svg(draw_figure(chart.draw, _SMALL, chart.names), f"{name}_small", chart.title)
        drawn = f'<div class="large">{drawn}</div><div class="small">{small}</div>'
    return f"<figure{kind}><figcaption>{escape(chart.title)}</figcaption>{drawn}</figure>\n"


def _legend(panel: Panel, styles: GroupStyles) -> str:
    items = []
    for group in panel.groups:
        color = COLORS.index(styles[group.name].color)
        line = (
            '<svg viewBox="0 0 28 6" width="28" height="6" aria-hidden="true"><line x1="0" y1="3" x2="28" y2="3" '
            f'style="stroke: var(--group-{color}); stroke-width: 3" '
            f'stroke-dasharray="{_DASHES[styles[group.name].line]}"/></svg>'
        )
        runs = sum(map(len, group.scores))
        items.append(f"<li>{line} {escape(group.name)} <small>{runs} run{'s' * (runs > 1)}</small></li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _table(table: TextTable) -> str:
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


def write_report(comparison: Comparison, folder: Path, command: str) -> list[Path]:
    """Write all files of a comparison to a folder; return their paths, the HTML page first.

    Raises:
        UserError: the folder cannot be written.
    """
    plots, tables = comparison_plots(comparison), comparison_tables(comparison)
    texts = {
        "index.html": html_report(comparison, tables, command),
        "comparison.md": markdown_report(comparison, tables, [plot.name for plot in plots], command),
        "comparison.json": json.dumps(json_report(comparison), indent=2, allow_nan=False) + "\n",
        "runs.csv": _csv(_runs(comparison)),
        "groups.csv": _csv(_groups(comparison)),
        "curves.csv": _csv(_curves(comparison)),
        **{f"{plot.name}.svg": svg(plot.figure, plot.name) for plot in plots},
    }
    images = {f"{plot.name}.png": png(plot.figure) for plot in plots}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, image in images.items():
            (folder / name).write_bytes(image)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written: {error.strerror}") from error
    return [folder / name for name in (*texts, *images)]


def json_report(comparison: Comparison) -> dict[str, Any]:
    """Return all results as plain values."""
    return {
        "metric": comparison.metric,
        "level": comparison.level,
        "normalisation": comparison.rule,
        "notes": list(comparison.notes),
        "panels": [_panel(panel) for panel in comparison.panels],
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "env": panel.env,
        "step": panel.step,
        "groups": [_group(group) for group in panel.groups],
        "pairs": [_pair(pair) for pair in panel.pairs],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {**asdict(pair), "runs": list(pair.runs), "more_seeds": more_seeds(pair)}


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "runs": [
            {
                "folder": str(run.folder),
                "source": run.source,
                "env": run.env,
                "seed": run.seed,
                "state": run.state,
            }
            for run in group.runs
        ],
        "scores": [stratum.tolist() for stratum in group.scores],
        **{name: asdict(getattr(group, name)) for name in ("iqm", "median", "mean", "area")},
        "costs": {axis.key: asdict(cost) for axis, cost in group.costs.items()},
        "health": {
            tag: {"mean": everywhere, "last_tenth": None if math.isnan(late) else late}
            for tag, (everywhere, late) in group.health.items()
        },
        "curves": {axis.key: _curve(curve) for axis, curve in group.curves.items()},
        "run_curves": [stratum.tolist() for stratum in group.run_curves],
        "health_curves": {tag: _curve(curve) for tag, curve in group.health_curves.items()},
        "profile": _curve(group.profile),
    }


def _curve(curve: Curve) -> dict[str, Any]:
    ends = {"low": curve.low, "high": curve.high}
    return {
        "x": curve.x.tolist(),
        "y": curve.y.tolist(),
        **{name: None if end is None else end.tolist() for name, end in ends.items()},
    }


def _csv(rows: Iterator[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _runs(comparison: Comparison) -> Iterator[Sequence[Any]]:
    yield "env", "group", "seed", "score", "step", "state", "source", "folder"
    for panel in comparison.panels:
        for group in panel.groups if panel.env else []:
            for run, score in zip(group.runs, group.scores[0], strict=True):
                yield panel.env, group.name, run.seed, score, panel.step, run.state, run.source, run.folder


def _groups(comparison: Comparison) -> Iterator[Sequence[Any]]:
    statistics = ("iqm", "median", "mean", "area")
    yield "env", "group", "runs", *(f"{name}{end}" for name in statistics for end in ("", "_low", "_high"))
    for panel in comparison.panels:
        for group in panel.groups:
            numbers = [
                getattr(getattr(group, name), end) for name in statistics for end in ("value", "low", "high")
            ]
            yield panel.env or "all, normalised", group.name, sum(map(len, group.scores)), *numbers


def _curves(comparison: Comparison) -> Iterator[Sequence[Any]]:
    yield "env", "group", "axis", "x", "iqm", "low", "high"
    for panel in comparison.panels:
        for group in panel.groups:
            for axis, curve in group.curves.items():
                env = panel.env or "all, normalised"
                key = axis.key if panel.env else "training_fraction"
                for i, x in enumerate(curve.x):
                    ends = [None if end is None else end[i] for end in (curve.low, curve.high)]
                    yield env, group.name, key, x, curve.y[i], *ends
