"""`pgx runs`: list the runs in a folder, with their progress.

The table is plain lines that fit a width; long names are shortened in the middle.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pgx.cli.arguments import Command
from pgx.core.errors import UserError
from pgx.core.stopping import QuietInterrupt
from pgx.core.text import format_number
from pgx.runs.lock import LOCK, holder

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

    from pgx.sweeps.progress import RunState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", default="outputs", metavar="DIR", help="folder of runs (default: outputs)"
    )
    parser.add_argument("--watch", action="store_true", help="refresh every few seconds, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print JSON; with --watch, one list per refresh")


def run(options: argparse.Namespace) -> int:
    return runs(Path(options.folder), options.watch, options.json)


COMMAND = Command(
    "runs",
    "list runs: state, steps, return, speed",
    "List the runs in a folder, the latest first.",
    add_arguments,
    run,
)


_REFRESH_SECONDS = 3.0  # seconds between refreshes of --watch


@dataclass(frozen=True)
class RunFileState:
    """Modification times and lock of a run; equal if nothing has changed."""

    modified: tuple[float, ...]  # times in seconds, one per file; 0: the file is missing
    locked: bool  # a process holds the run's lock

    @property
    def last_write(self) -> float:
        return max(self.modified)


@dataclass(frozen=True)
class RunRow:
    """Row of the table: one run."""

    run: str
    env: str | None
    algo: str | None
    seed: int | None
    state: RunState | str  # a state of pgx.sweeps.progress, or "unreadable"
    steps: int
    total_steps: int | None
    recent_return: float | None  # mean of the last 20 episodes
    best_return: float | None  # highest recent_return so far
    steps_per_second: float | None
    age: float  # seconds since the last write
    error: str | None


_Cache = dict[Path, tuple[RunFileState, RunRow]]


def runs(folder: Path, watch: bool, as_json: bool) -> int:
    """Print the runs in a folder, latest first; with `watch` repeatedly, until Ctrl-C. Return the exit code.

    Raises:
        UserError: the folder does not exist or contains no run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one with runs")
    if watch:
        try:
            _watch(folder, as_json)
        except KeyboardInterrupt as error:
            raise QuietInterrupt from error
    lines = find_rows(folder, {})
    if not lines:
        raise UserError(f"{folder}: contains no run")
    if as_json:
        print(_json(lines))
    else:
        _print(lines)
    return 0


def _watch(folder: Path, as_json: bool) -> NoReturn:
    """Print the runs repeatedly: redraw in place on a terminal, else print one table after another."""
    from rich.console import Console
    from rich.live import Live

    cache: _Cache = {}
    if sys.stdout.isatty() and not as_json:
        console = Console()
        with Live(
            _screen(find_rows(folder, cache), console), console=console, auto_refresh=False, screen=True
        ) as live:
            while True:
                time.sleep(_REFRESH_SECONDS)
                live.update(_screen(find_rows(folder, cache), console), refresh=True)
    while True:
        lines = find_rows(folder, cache)
        if as_json:
            print(_json(lines), flush=True)
        else:
            _print(lines)
            print(time.strftime("%H:%M:%S"), flush=True)
        time.sleep(_REFRESH_SECONDS)


def find_rows(folder: Path, cache: _Cache) -> list[RunRow]:
    """Return a row for each run in a folder or below it, the run with the latest write first.

    Args:
        folder: searched for runs.
        cache: rows of earlier calls, updated in place; only runs whose files have changed are read again.
    """
    from pgx.analysis.find import pgx_run_folders

    lines = []
    for path in pgx_run_folders(folder):
        state = _file_state(path)
        if path not in cache or cache[path][0] != state:
            cache[path] = state, _read_row(path, folder)
        lines.append(replace(cache[path][1], age=max(0.0, time.time() - state.last_write)))
    return sorted(lines, key=lambda line: line.age)


def _file_state(path: Path) -> RunFileState:
    from pgx.config.stored import CONFIG
    from pgx.runs.loggers.jsonl import METRICS
    from pgx.runs.writer import SUMMARY

    files = [path / name for name in (METRICS, SUMMARY, CONFIG, LOCK)]
    modified = tuple(file.stat().st_mtime if file.exists() else 0.0 for file in files)
    return RunFileState(modified, holder(path) is not None)


def _read_row(path: Path, folder: Path) -> RunRow:
    from pgx.runs.loggers.jsonl import METRICS, read_rows
    from pgx.runs.metrics import tag
    from pgx.runs.writer import read_summary
    from pgx.sweeps.progress import read_progress

    name = str(path.relative_to(folder)) if path != folder else str(path)
    try:
        progress = read_progress(path)
        rows = read_rows(path / METRICS)
        best = None if progress.state == "running" else read_summary(path).get("best_return")
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        return RunRow(name, None, None, None, "unreadable", 0, None, None, None, None, 0.0, why)
    recent = tag("episode_return_recent")
    returns = [row[recent] for row in rows if recent in row]
    last = returns[-1] if returns else None
    return RunRow(
        run=name,
        env=progress.env,
        algo=progress.algo,
        seed=progress.seed,
        state=progress.state,
        steps=progress.steps,
        total_steps=progress.total_steps,
        recent_return=last if progress.final_return is None else progress.final_return,
        best_return=max(returns, default=None) if best is None else best,
        steps_per_second=progress.steps / progress.seconds if progress.seconds > 0 else None,
        age=0.0,
        error=progress.error,
    )


def _print(lines: Sequence[RunRow]) -> None:
    """Print the table: fitted to a terminal, else complete."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(color_system=None)
    width = console.width if sys.stdout.isatty() else None
    for line in draw_rows(lines, width, console.options.ascii_only):
        console.print(line, soft_wrap=True)


def _screen(lines: Sequence[RunRow], console: Console) -> Group:
    from rich.console import Group

    return Group(*draw_rows(lines, console.width, console.options.ascii_only))


def _json(lines: Sequence[RunRow]) -> str:
    from pgx.runs.loggers.jsonl import encode_nonfinite

    return json.dumps([encode_nonfinite(asdict(line)) for line in lines], allow_nan=False)


_COLUMN_GAP = 2  # spaces between columns
_NAME_WIDTH = 24  # characters that a name keeps when optional columns are shown
_MIN_NAME_WIDTH = 8  # minimum characters of a name
_COLOURS = {"running": "green", "failed": "red", "interrupted": "yellow", "unreadable": "red"}


@dataclass(frozen=True)
class _Column:
    """Column of the table."""

    title: str
    cells: Sequence[str]
    is_name: bool = False  # left-aligned, and shortened if the table is too wide
    priority: int = 0  # 0: always shown; others are shown in this order while there is room

    @property
    def width(self) -> int:
        return max(map(len, [self.title, *self.cells]))


def draw_rows(lines: Sequence[RunRow], width: int | None, ascii_only: bool) -> list[Text]:
    """Return the table as lines of text, followed by the error messages of runs.

    Args:
        lines: the runs, in order.
        width: maximum characters per line; None: show all columns with complete names.
        ascii_only: use ASCII characters only.
    """
    from rich.text import Text

    columns = _columns(lines)
    ellipsis, rule = ("~", "-") if ascii_only else ("…", "─")
    widths = [column.width for column in columns]
    if width is not None:
        columns = _select_columns(columns, width)
        widths = _fit_widths(columns, width)
    shortened = [
        [shorten(cell, size, ellipsis) for cell in (column.title, *column.cells)]
        for column, size in zip(columns, widths, strict=True)
    ]
    rows = [
        (" " * _COLUMN_GAP)
        .join(
            cell.ljust(size) if column.is_name else cell.rjust(size)
            for cell, column, size in zip(cells, columns, widths, strict=True)
        )
        .rstrip()
        for cells in zip(*shortened, strict=True)
    ]
    drawn = [Text(rows[0], style="bold"), Text(rule * (sum(widths) + _COLUMN_GAP * (len(widths) - 1)))]
    for line, row in zip(lines, rows[1:], strict=True):
        text = Text(row)
        text.highlight_words([line.state], _COLOURS.get(line.state, ""))
        drawn.append(text)
    return [*drawn, *(Text(row, style="red") for row in _errors(lines, width))]


def _columns(lines: Sequence[RunRow]) -> list[_Column]:
    def texts(values: Sequence[object]) -> list[str]:
        return ["-" if value is None else str(value) for value in values]

    def numbers(values: Sequence[float | None]) -> list[str]:
        return ["-" if value is None else format_number(value) for value in values]

    totals = [line.total_steps for line in lines]
    fractions = [
        f"{min(1.0, line.steps / line.total_steps):.0%}" if line.total_steps else "-" for line in lines
    ]
    rates = [line.steps_per_second for line in lines]
    return [
        _Column("run", [line.run for line in lines], is_name=True),
        _Column("env", texts([line.env for line in lines]), is_name=True),
        _Column("algo", texts([line.algo for line in lines]), is_name=True),
        _Column("seed", texts([line.seed for line in lines])),
        _Column("status", [line.state for line in lines], is_name=True),
        _Column("steps", [f"{line.steps:,}" for line in lines]),
        _Column("of", ["-" if total is None else f"{total:,}" for total in totals], priority=5),
        _Column("done", fractions, priority=1),
        _Column("return", numbers([line.recent_return for line in lines])),
        _Column("best", numbers([line.best_return for line in lines]), priority=2),
        _Column("steps/s", ["-" if rate is None else f"{rate:,.0f}" for rate in rates], priority=4),
        _Column("age", [_age(line.age) for line in lines], priority=3),
    ]


def _select_columns(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Return the columns that fit the width with names of at most _NAME_WIDTH characters."""
    chosen = set[int]()
    room = width
    for number, column in sorted(enumerate(columns), key=lambda pair: pair[1].priority):
        room -= min(column.width, _NAME_WIDTH) + (_COLUMN_GAP if chosen else 0)
        if column.priority > 0 and room < 0:
            break
        chosen.add(number)
    return [column for number, column in enumerate(columns) if number in chosen]


def _fit_widths(columns: Sequence[_Column], width: int) -> list[int]:
    """Return the widths of columns; the longest name columns shrink until the table fits."""
    widths = [column.width for column in columns]
    while sum(widths) + _COLUMN_GAP * (len(widths) - 1) > width:
        long = [i for i, column in enumerate(columns) if column.is_name and widths[i] > _MIN_NAME_WIDTH]
        if not long:
            break
        widths[max(long, key=widths.__getitem__)] -= 1
    return widths


def shorten(text: str, size: int, ellipsis: str) -> str:
    """Return a text of at most `size` characters. Its middle is cut, because names often differ at the end."""
    if len(text) <= size:
        return text
    head = (size - 1) // 3
    return text[:head] + ellipsis + text[len(text) - (size - 1 - head) :]


def _errors(lines: Sequence[RunRow], width: int | None) -> Iterator[str]:
    """Yield the error messages of runs, each with the complete name of its run."""
    for line in lines:
        if line.error:
            text = f"{line.run}: {line.state}: {' '.join(line.error.split())}"
            yield from (
                [text]
                if width is None
                else textwrap.wrap(
                    text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
                )
            )


def _age(seconds: float) -> str:
    from pgx.runs.loggers.console import format_seconds

    days = int(seconds // 86400)
    return f"{days} d" if days else format_seconds(max(0.0, seconds))
