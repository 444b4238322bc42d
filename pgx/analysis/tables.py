"""Tables of a comparison, as text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pgx.analysis.comparison import (
    AXES,
    MAX_PLANNED_RUNS,
    Axis,
    Comparison,
    Group,
    Pair,
    Panel,
    label,
    verdict,
)
from pgx.analysis.statistics import Estimate
from pgx.core.text import format_number

_MAX_COLUMNS = 6  # groups in a table of health metrics


@dataclass(frozen=True)
class TextTable:
    """Table of text.

    Args:
        title: of the table.
        header: of the columns.
        rows: cells.
        left: number of left-aligned columns; the others are numbers.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


def comparison_tables(comparison: Comparison) -> list[TextTable]:
    """Return the tables of scores and pairs of each panel, then of costs, then of health metrics."""
    tables = []
    for panel in comparison.panels:
        tables.append(_scores(panel, comparison))
        if panel.pairs:
            tables.append(_pairs(panel))
    environments = [panel for panel in comparison.panels if panel.env is not None]
    tables += [_costs(panel) for panel in environments]
    return tables + [table for panel in environments for table in _health(panel)]


def _scores(panel: Panel, comparison: Comparison) -> TextTable:
    interval = f"{comparison.level:.0%}"
    header = ["group", "runs"]
    for name in ("IQM", "median", "mean", "area"):
        header += [name, interval]
    rows = []
    for group in panel.groups:
        row = [group.name, str(sum(map(len, group.scores)))]
        for estimate in (group.iqm, group.median, group.mean, group.area):
            row += [_score(panel, estimate.value), _interval(panel, estimate)]
        rows.append(row)
    return TextTable(f"{panel.title}: {comparison.metric}", header, rows)


def _score(panel: Panel, value: float) -> str:
    return format_number(value) if panel.env else f"{value:.3f}"


def _interval(panel: Panel, estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{_score(panel, estimate.low)} .. {_score(panel, estimate.high)}"


def _pairs(panel: Panel) -> TextTable:
    header = ["first", "second", "P(first > second)", "interval", "difference", "p", "more seeds each"]
    rows = []
    for pair in panel.pairs:
        rows.append(
            [
                pair.first,
                pair.second,
                *_probability(pair.probability),
                _score(panel, pair.gap),
                "-" if pair.p is None else f"{pair.p:.3f}",
                more_seeds(pair),
            ]
        )
    return TextTable(f"{panel.title}: pairs", header, rows, left=2)


def _probability(likely: Estimate | None) -> tuple[str, str]:
    """Return the cells of a probability and its interval."""
    if likely is None:
        return "-", "-"
    if likely.low is None or likely.high is None:
        return f"{likely.value:.2f}", "-"
    return f"{likely.value:.2f}", f"{likely.low:.2f} .. {likely.high:.2f}"


def more_seeds(pair: Pair) -> str:
    """Return how many more runs each of two groups needs, in words."""
    if pair.needed is None:
        return "-"
    more = pair.needed - min(pair.runs)
    if more <= 0:
        return "enough"
    return f"{more:,}" if pair.needed <= MAX_PLANNED_RUNS else f"> {MAX_PLANNED_RUNS:,}"


def _costs(panel: Panel) -> TextTable:
    axes = [axis for axis in AXES if any(axis in group.costs for group in panel.groups)]
    rows = [[group.name, *(_cost(group, axis) for axis in axes)] for group in panel.groups]
    return TextTable(f"{panel.title}: costs, mean over runs", ["group", *(axis.label for axis in axes)], rows)


def _cost(group: Group, axis: Axis) -> str:
    cost = group.costs.get(axis)
    if cost is None:
        return "-"
    number = f"{cost.value:,.0f}" if cost.value >= 10 else f"{cost.value:,.1f}"
    return number if cost.exact else f"~{number}"


def _health(panel: Panel) -> list[TextTable]:
    """Return tables with a row per metric and a column per group: the mean over training, and over its last tenth."""
    tables = []
    for start in range(0, len(panel.groups), _MAX_COLUMNS):
        groups = panel.groups[start : start + _MAX_COLUMNS]
        tags = dict.fromkeys(tag for group in groups for tag in group.health)
        rows = [[tag, *(_means(group.health.get(tag)) for group in groups)] for tag in tags]
        title = f"{panel.title}: health, mean over training | over its last tenth"
        tables.append(TextTable(title, ["metric", *(group.name for group in groups)], rows))
    return [table for table in tables if table.rows]


def _means(means: tuple[float, float] | None) -> str:
    return "-" if means is None else " | ".join(map(_number, means))


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def markdown_report(
    comparison: Comparison, tables: Sequence[TextTable], figures: Sequence[str], command: str | None
) -> str:
    """Return a comparison as Markdown.

    Args:
        comparison: to show.
        tables: of the comparison.
        figures: names of SVG files next to the text.
        command: command line that repeats the comparison; None: there is none.
    """
    lines = [f"# Comparison: {label(comparison.metric).phrase}", ""]
    if command is not None:
        lines += [f"    {command}", ""]
    for panel in comparison.panels:
        found = verdict(panel, comparison.metric, comparison.level)
        lines += [f"**{found.headline}.** {' '.join(found.details)}", ""]
    for name in figures:
        lines += [f"![{name}]({name}.svg)", ""]
    for table in tables:
        lines += [f"## {table.title}", "", _row(table.header)]
        lines += ["|" + "|".join("---" if i < table.left else "--:" for i in range(len(table.header))) + "|"]
        lines += [*(_row(cells) for cells in table.rows), ""]
    notes = [*([comparison.rule] if comparison.rule else []), *comparison.notes]
    return "\n".join([*lines, *(["## Notes", ""] if notes else []), *(f"- {note}" for note in notes)]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
