"""`pgx runs`: the runs below a folder, and how far each is."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pgx.analysis.reading.find import own_folders
from pgx.config.stored import CONFIG
from pgx.errors import UserError
from pgx.loggers.console import clock_face
from pgx.loggers.jsonl import METRICS, read
from pgx.metrics import shown, tag
from pgx.run_lock import LOCK
from pgx.sweeps.progress import look
from pgx.trainer import SUMMARY

INTERVAL = 3.0  # seconds between looks of --watch
WIDE = 400  # columns of what is no terminal, where nothing is cut or wrapped
_COLOURS = {"running": "green", "failed": "red", "interrupted": "yellow", "unreadable": "red"}


@dataclass(frozen=True)
class Line:
    """One run."""

    run: str
    state: str  # of pgx.sweeps.progress; or unreadable
    steps: int
    total_steps: int | None
    recent_return: float | None  # mean of the last 20 episodes
    best_return: float | None  # the highest that this has been
    steps_per_second: float | None
    age: float  # seconds since it last wrote
    error: str | None


def runs(folder: Path, watch: bool, as_json: bool) -> int:
    """Show the runs below a folder, newest first; with `watch` again and again, until Ctrl-C.

    Raises:
        UserError: no such folder, or no run below it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with runs below it")
    lines = look_below(folder)
    if not lines and not watch:
        raise UserError(f"{folder}: no run below it")
    if as_json:
        print(_json(lines), flush=True)
    elif not watch:
        _console().print(_table(lines))
    elif sys.stdout.isatty():
        _redraw(folder, lines)
    while watch:
        if not as_json:
            _console().print(_table(lines), time.strftime("%H:%M:%S"))
            sys.stdout.flush()
        time.sleep(INTERVAL)
        lines = look_below(folder)
        if as_json:
            print(_json(lines), flush=True)
    return 0


def look_below(folder: Path) -> list[Line]:
    """A line for each run at or below a folder, the one that wrote last first."""
    return sorted((_line(path, folder) for path in own_folders(folder)), key=lambda line: line.age)


def _line(path: Path, below: Path) -> Line:
    name = str(path.relative_to(below)) if path != below else str(path)
    written = [(path / file).stat().st_mtime for file in (METRICS, SUMMARY, CONFIG, LOCK) if (path / file).exists()]
    age = time.time() - max(written, default=path.stat().st_mtime)
    try:
        seen = look(path)
        summary = json.loads((path / SUMMARY).read_text()) if seen.state != "running" and (path / SUMMARY).exists() else {}
        rows = read(path / METRICS)
    except (UserError, OSError, ValueError, KeyError, TypeError) as error:
        problem = " ".join(str(error).split())
        return Line(name, "unreadable", 0, None, None, None, None, age, problem)
    returns = [row[tag("episode_return_recent")] for row in rows if tag("episode_return_recent") in row]
    return Line(
        run=name,
        state=seen.state,
        steps=seen.steps,
        total_steps=seen.total_steps,
        recent_return=seen.final_return if seen.final_return is not None else (returns[-1] if returns else None),
        best_return=summary.get("best_return") or max(returns, default=None),
        steps_per_second=seen.steps / seen.seconds if seen.seconds > 0 else None,
        age=age,
        error=seen.error,
    )


def _json(lines: Sequence[Line]) -> str:
    return json.dumps([asdict(line) for line in lines])


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in ("steps", "of", "return", "best", "steps/s", "age"):
        table.add_column(name, justify="right")
    for line in lines:
        share = f"{min(1.0, line.steps / line.total_steps):.0%}" if line.total_steps else "-"
        numbers = [line.recent_return, line.best_return]
        table.add_row(
            Text(line.run),
            Text(line.state, style=_COLOURS.get(line.state, "")),
            f"{line.steps:,}",
            f"{line.total_steps:,} {share:>4}" if line.total_steps else "-",
            *("-" if number is None else shown(number) for number in numbers),
            "-" if line.steps_per_second is None else f"{line.steps_per_second:,.0f}",
            _age(line.age),
        )
        if line.error:
            table.add_row(Text(f"  {' '.join(line.error.split())}", style="red"))
    return table


def _age(seconds: float) -> str:
    days = int(seconds // 86400)
    return f"{days} d" if days else clock_face(max(0.0, seconds))
