"""`pgx compare`: compare groups of runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgx.cli.arguments import Command, count
from pgx.core.errors import UserError
from pgx.core.imports import require

if TYPE_CHECKING:
    from rich.table import Table as Drawn

    from pgx.analysis.tables import TextTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "places",
        nargs="+",
        metavar="DIR",
        help="folders with runs; DIR:env=...,algo=... describes runs of other libraries",
    )
    parser.add_argument(
        "--by",
        default="algo",
        metavar="KEYS",
        help="config keys that define a group (default: algo)",
    )
    parser.add_argument(
        "--metric", metavar="TAG", help="metric to compare (default: rollout/episode_return_recent)"
    )
    parser.add_argument(
        "--at",
        type=count,
        metavar="STEP",
        help="environment step at which runs are scored (default: the last that all reach)",
    )
    parser.add_argument(
        "--reference",
        metavar="FILE",
        help="YAML file with a line ENV: [LOW, HIGH] for each environment; scores are normalized so that LOW is 0 "
        "and HIGH is 1 (default: lowest and highest score of the runs)",
    )
    parser.add_argument(
        "--resamples",
        metavar="N",
        type=count,
        default=2000,
        help="resamples of the bootstrap (default: 2000)",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument(
        "--out", metavar="FOLDER", help="write an HTML page, figures, CSV, JSON and Markdown to this folder"
    )


def run(options: argparse.Namespace) -> int:
    return compare_runs(
        options.places,
        options.by,
        options.metric,
        options.at,
        options.reference,
        options.resamples,
        options.seed,
        options.out,
    )


COMMAND = Command(
    "compare",
    "compare groups of runs over seeds: scores with intervals, curves, costs, health metrics",
    "Compare groups of runs: by default all seeds of one rule on one environment form a group (docs/compare.md).",
    add_arguments,
    run,
)


_PIPE_COLUMNS = 400  # columns when output is not a terminal, so that no line is wrapped


def compare_runs(
    places: Sequence[str],
    by: str,
    metric: str | None,
    at: int | None,
    reference: str | None,
    resamples: int,
    seed: int,
    out: str | None,
) -> int:
    """Compare the runs below folders; return the exit code.

    Args:
        places: folders of runs, each optionally with `:env=...,algo=...`.
        by: config keys that define a group, separated by commas.
        metric: tag of the metric; None: the recent return.
        at: environment step at which runs are scored; None: the last that all runs of an environment reach.
        reference: file with scores normalized to 0 and 1; None: lowest and highest scores of the runs.
        resamples: number of resamples of the bootstrap.
        seed: of the bootstrap.
        out: folder to write files to; None: print the tables only.

    Raises:
        UserError: no folder contains a run, or an argument is wrong.
    """
    from rich.console import Console
    from rich.text import Text

    from pgx.analysis.comparison import compare_groups, read_reference
    from pgx.analysis.find import parse_run_folder, read_runs
    from pgx.analysis.tables import comparison_tables
    from pgx.api.comparison import comparison_request
    from pgx.config.stored import pgx_command

    if out is not None:
        require("--out", "matplotlib")
    reference_scores = read_reference(Path(reference)) if reference else None
    runs, problems = read_runs([parse_run_folder(place) for place in places])
    for line in problems:
        print(f"pgx: {line}", file=sys.stderr)
    if not runs and problems:
        raise UserError(
            f"{' '.join(places)}: no run with metrics in these folders; {len(problems)} have none"
        )
    if not runs:
        raise UserError(
            f"{' '.join(places)}: no run in these folders; name folders with metrics.jsonl or TensorBoard event files"
        )
    request = comparison_request(metric, by.split(","), at, reference_scores, resamples, seed)
    found = compare_groups(runs, request)
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_COLUMNS, color_system=None)
    for table in comparison_tables(found):
        console.print(Text(table.title, style="bold"), soft_wrap=True)
        console.print(_drawn(table))
    for note in [*([found.rule] if found.rule else []), *found.notes]:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    if out is not None:
        from pgx.analysis.report import write_report

        step = [] if at is None else ["--at", str(at)]
        repeat = pgx_command("compare", *places, "--by", by, "--metric", request.metric, *step)
        complete = replace(found, notes=[*found.notes, *(f"skipped: {line}" for line in problems)])
        written = write_report(complete, Path(out), repeat)
        console.print(Text(f"{len(written)} files in {out}; open {written[0]}"), soft_wrap=True)
    return 0


def _drawn(table: TextTable) -> Drawn:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD)
    for number, name in enumerate(table.header):
        drawn.add_column(Text(name), justify="left" if number < table.left else "right", overflow="fold")
    for cells in table.rows:
        drawn.add_row(*map(Text, cells))
    return drawn
