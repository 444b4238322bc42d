"""A comparison as files: JSON, CSV, Markdown, figures, one page."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pgx.analysis.comparison.figures import plots_of, png, svg
from pgx.analysis.comparison.labels import label
from pgx.analysis.comparison.page import page
from pgx.analysis.comparison.result import Comparison, Curve, Group, Pair, Panel
from pgx.analysis.comparison.tables import Table, more_seeds, tables_of
from pgx.analysis.comparison.verdict import verdict
from pgx.core.errors import UserError


def write(comparison: Comparison, folder: Path, command: str) -> list[Path]:
    """Write everything into a folder; returns the files, the page first.

    Raises:
        UserError: it cannot be written.
    """
    plots, tables = plots_of(comparison), tables_of(comparison)
    texts = {
        "index.html": page(comparison, tables, command),
        "comparison.md": markdown(comparison, tables, [plot.name for plot in plots], command),
        "comparison.json": json.dumps(as_json(comparison), indent=2, allow_nan=False) + "\n",
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
        raise UserError(f"--out {folder}: cannot write there: {error.strerror}") from error
    return [folder / name for name in (*texts, *images)]


def markdown(comparison: Comparison, tables: Sequence[Table], figures: Sequence[str], command: str) -> str:
    """The same as a page of Markdown."""
    lines = [f"# Comparison: {label(comparison.metric).phrase}", "", f"    {command}", ""]
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


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that was found, as plain values."""
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
                key = axis.key if panel.env else "share_of_training"
                for i, x in enumerate(curve.x):
                    ends = [None if end is None else end[i] for end in (curve.low, curve.high)]
                    yield env, group.name, key, x, curve.y[i], *ends
