"""The table of `pgx runs`: plain lines that fit a width, with names shortened in the middle."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from pgx.core.formatting import shown
from pgx.runs.loggers.console import clock_face
from pgx.sweeps.progress import State

GAP = 2  # blanks between columns
ENOUGH = 24  # characters that a name keeps if further columns are shown
FEWEST = 8  # characters that a name keeps at least
_COLOURS = {"running": "green", "failed": "red", "interrupted": "yellow", "unreadable": "red"}


@dataclass(frozen=True)
class Line:
    """One run."""

    run: str
    env: str | None
    algo: str | None
    seed: int | None
    state: State | str  # of pgx.sweeps.progress; or unreadable
    steps: int
    total_steps: int | None
    recent_return: float | None  # mean of the last 20 episodes
    best_return: float | None  # the highest that this has been
    steps_per_second: float | None
    age: float  # seconds since it last wrote
    error: str | None


@dataclass(frozen=True)
class Column:
    """A column of text."""

    title: str
    cells: Sequence[str]
    name: bool = False  # aligned to the left, and shortened where the table is too wide
    rank: int = 0  # columns of rank 0 are always shown, others in this order where there is room

    @property
    def width(self) -> int:
        return max(map(len, [self.title, *self.cells]))


def table(lines: Sequence[Line], width: int | None, ascii_only: bool) -> list[Text]:
    """Return the table, and the errors of runs below it, as lines of text.

    Args:
        lines: the runs, in order.
        width: characters that the table has to fit; None: nothing is left out or shortened.
        ascii_only: avoid other characters.
    """
    columns = _columns(lines)
    ellipsis, rule = ("~", "-") if ascii_only else ("…", "─")
    widths = [column.width for column in columns]
    if width is not None:
        columns = _chosen(columns, width)
        widths = _fitted(columns, width)
    shortened = [
        [shorten(cell, size, ellipsis) for cell in (column.title, *column.cells)]
        for column, size in zip(columns, widths, strict=True)
    ]
    rows = [
        (" " * GAP)
        .join(
            cell.ljust(size) if column.name else cell.rjust(size)
            for cell, column, size in zip(cells, columns, widths, strict=True)
        )
        .rstrip()
        for cells in zip(*shortened, strict=True)
    ]
    drawn = [Text(rows[0], style="bold"), Text(rule * (sum(widths) + GAP * (len(widths) - 1)))]
    for line, row in zip(lines, rows[1:], strict=True):
        text = Text(row)
        text.highlight_words([line.state], _COLOURS.get(line.state, ""))
        drawn.append(text)
    return [*drawn, *(Text(row, style="red") for row in _errors(lines, width))]


def _columns(lines: Sequence[Line]) -> list[Column]:
    def of(values: Sequence[object]) -> list[str]:
        return ["-" if value is None else str(value) for value in values]

    def numbers(values: Sequence[float | None]) -> list[str]:
        return ["-" if value is None else shown(value) for value in values]

    totals = [line.total_steps for line in lines]
    shares = [f"{min(1.0, line.steps / line.total_steps):.0%}" if line.total_steps else "-" for line in lines]
    rates = [line.steps_per_second for line in lines]
    return [
        Column("run", [line.run for line in lines], name=True),
        Column("env", of([line.env for line in lines]), name=True),
        Column("algo", of([line.algo for line in lines]), name=True),
        Column("seed", of([line.seed for line in lines])),
        Column("status", [line.state for line in lines], name=True),
        Column("steps", [f"{line.steps:,}" for line in lines]),
        Column("of", ["-" if total is None else f"{total:,}" for total in totals], rank=5),
        Column("done", shares, rank=1),
        Column("return", numbers([line.recent_return for line in lines])),
        Column("best", numbers([line.best_return for line in lines]), rank=2),
        Column("steps/s", ["-" if rate is None else f"{rate:,.0f}" for rate in rates], rank=4),
        Column("age", [_age(line.age) for line in lines], rank=3),
    ]


def _chosen(columns: Sequence[Column], width: int) -> list[Column]:
    """Leave out the columns for which there is no room, even with names at ENOUGH characters."""
    chosen = set[int]()
    room = width
    for number, column in sorted(enumerate(columns), key=lambda pair: pair[1].rank):
        room -= min(column.width, ENOUGH) + (GAP if chosen else 0)
        if column.rank > 0 and room < 0:
            break
        chosen.add(number)
    return [column for number, column in enumerate(columns) if number in chosen]


def _fitted(columns: Sequence[Column], width: int) -> list[int]:
    """Return widths of columns, names shortened from the longest on until the table fits."""
    widths = [column.width for column in columns]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        long = [i for i, column in enumerate(columns) if column.name and widths[i] > FEWEST]
        if not long:
            break
        widths[max(long, key=widths.__getitem__)] -= 1
    return widths


def shorten(text: str, size: int, ellipsis: str) -> str:
    """Return a text with its middle replaced where it is longer than a size; names often differ at their end."""
    if len(text) <= size:
        return text
    head = (size - 1) // 3
    return text[:head] + ellipsis + text[len(text) - (size - 1 - head) :]


def _errors(lines: Sequence[Line], width: int | None) -> Iterator[str]:
    """Yield the errors below the table, each with the whole name of its run."""
    for line in lines:
        if line.error:
            said = f"{line.run}: {line.state}: {' '.join(line.error.split())}"
            yield from (
                [said]
                if width is None
                else textwrap.wrap(
                    said, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
                )
            )


def _age(seconds: float) -> str:
    days = int(seconds // 86400)
    return f"{days} d" if days else clock_face(max(0.0, seconds))
