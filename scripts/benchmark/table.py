"""Table of medians, ranges and ratios, computed from rows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from .rows import BARE, LOOP, MORE_IS_BETTER, PGX, Detail, Row, Side

PEERS: tuple[Side, ...] = ("sb3", "tianshou")
TITLES = {"bare": "EnvPool alone", "pgx": "pgx", "sb3": "SB3", "tianshou": "Tianshou"}


@dataclass(frozen=True)
class Line:
    """All rounds of one job, case, side and setting."""

    first: Row  # for the fields that all rows share
    values: tuple[float, ...]  # infinite: not reached
    details: dict[str, Detail]  # medians of numbers, last values of others

    @property
    def median(self) -> float:
        return median(self.values)


def lines(rows: Iterable[Row]) -> list[Line]:
    """Group the rows of each measurement, in the order of their first rows."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.job, row.case, row.side, row.setting), []).append(row)
    return [
        Line(
            group[0],
            tuple(math.inf if row.value is None else row.value for row in group),
            {key: _typical([row.details.get(key) for row in group]) for key in group[0].details},
        )
        for group in groups.values()
    ]


def _typical(values: Sequence[Detail]) -> Detail:
    numbers = [value for value in values if isinstance(value, int | float)]
    return median(numbers) if numbers else values[-1]


def over_peer(line: Line, among: Sequence[Line], peer: Side) -> float | None:
    """Return the ratio of medians to the other library's best setting of the same work; None if there is none.

    Above 1 pgx is better, in every unit.
    """
    theirs = [
        other.median
        for other in among
        if (other.first.job, other.first.case, other.first.side) == (line.first.job, line.first.case, peer)
    ]
    if line.first.side != PGX or not theirs:
        return None
    more = line.first.unit in MORE_IS_BETTER
    above, below = (line.median, max(theirs)) if more else (min(theirs), line.median)
    if below == 0 or math.isinf(above) or math.isinf(below):
        return None
    return above / below


def of_bare(line: Line, among: Sequence[Line], num_envs: int | None) -> float | None:
    """Return the fraction of the bare simulator's median rate with num_envs environments, or (None) its best rate."""
    bare = [
        other.median
        for other in among
        if other.first.side == BARE and num_envs in (None, other.first.num_envs)
    ]
    if line.first.case != LOOP or not bare:
        return None
    return line.median / max(bare)


def growth(among: Sequence[Line]) -> list[str]:
    """Return sentences that compare the times of the largest and the smallest batch with their sizes."""
    groups: dict[tuple[str, str], dict[float, float]] = {}
    for line in among:
        batch = line.details.get("batch")
        if isinstance(batch, int | float):
            groups.setdefault((line.first.job, line.first.side), {})[batch] = line.median
    notes = []
    for (job, side), times in groups.items():
        small, large = min(times), max(times)
        if small < large:
            notes.append(
                f"{job}, {TITLES[side]}: {large:,.0f} rows take {times[large] / times[small]:.2f} times as long as "
                f"{small:,.0f}; the batch is {large / small:.2f} times as large"
            )
    return notes


def number(value: float, unit: str) -> str:
    """Return a value as the table shows it."""
    if math.isinf(value):
        return "not reached"
    match unit:
        case "steps/s" | "MB":
            return f"{value:,.0f}"
        case "relative":
            return f"{value:.1e}"
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def table(rows: Iterable[Row]) -> str:
    """Return a Markdown table with a line for each measurement, and notes below it."""
    among = lines(rows)
    peers = [peer for peer in PEERS if any(line.first.side == peer for line in among)]
    head = ["job", "what", "who", "setting", "unit", "median", "min to max", "rounds"]
    head += [f"over {TITLES[peer]}" for peer in peers]
    head += ["of bare, same number", "of best bare", "details"]
    body = [_cells(line, among, peers) for line in among]
    text = _markdown([head, *body])
    notes = growth(among)
    return text + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")


def _cells(line: Line, among: Sequence[Line], peers: Sequence[Side]) -> list[str]:
    row, unit = line.first, line.first.unit
    low, high = number(min(line.values), unit), number(max(line.values), unit)
    ratios = [over_peer(line, among, peer) for peer in peers]
    # Without this check, a row without a number of environments would be compared with the best bare rate twice.
    same = None if row.num_envs is None else of_bare(line, among, row.num_envs)
    best = of_bare(line, among, None)
    return [
        row.job,
        row.case,
        TITLES[row.side],
        row.setting,
        unit,
        number(line.median, unit),
        low if low == high else f"{low} to {high}",
        str(len(line.values)),
        *("" if ratio is None else f"{ratio:.2f} x" for ratio in ratios),
        "" if same is None else f"{same:.0%}",
        "" if best is None else f"{best:.0%}",
        ", ".join(f"{key} {_detail(value)}" for key, value in line.details.items()),
    ]


def _detail(value: Detail) -> str:
    if isinstance(value, int | float):
        return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2g}"
    return str(value)


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    padded = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    padded.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(padded) + "\n"
