"""`pgx runs`: the runs below a folder, and how far each is."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

from rich.console import Console, Group
from rich.live import Live

from pgx.analysis.find import own_folders
from pgx.cli.commands.runs_table import Line, table
from pgx.config.stored import CONFIG
from pgx.core.errors import UserError
from pgx.core.stopping import QuietInterrupt
from pgx.runs.lock import LOCK, holder
from pgx.runs.loggers.jsonl import METRICS, finite, read
from pgx.runs.metrics import tag
from pgx.runs.writer import SUMMARY, read_summary
from pgx.sweeps.progress import look

INTERVAL = 3.0  # seconds between looks of --watch
FILES = (METRICS, SUMMARY, CONFIG, LOCK)  # whose times tell when a run last wrote


@dataclass(frozen=True)
class Stamp:
    """What changes whenever a run does."""

    changed: tuple[float, ...]  # times of its files; 0: not there
    held: bool  # a process is at work there

    @property
    def written(self) -> float:
        return max(self.changed)


Seen = dict[Path, tuple[Stamp, Line]]


def runs(folder: Path, watch: bool, as_json: bool) -> int:
    """Show the runs below a folder, newest first; with `watch` again and again, until Ctrl-C.

    Raises:
        UserError: no such folder, or no run below it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with runs below it")
    if watch:
        try:
            _watch(folder, as_json)
        except KeyboardInterrupt as error:
            raise QuietInterrupt from error
    lines = look_below(folder, {})
    if not lines:
        raise UserError(f"{folder}: no run below it")
    if as_json:
        print(_json(lines))
    else:
        _print(lines)
    return 0


def _watch(folder: Path, as_json: bool) -> NoReturn:
    """Look again and again: redrawn in place on a terminal, one after another elsewhere."""
    seen: Seen = {}
    if sys.stdout.isatty() and not as_json:
        console = Console()
        with Live(
            _screen(look_below(folder, seen), console), console=console, auto_refresh=False, screen=True
        ) as live:
            while True:
                time.sleep(INTERVAL)
                live.update(_screen(look_below(folder, seen), console), refresh=True)
    while True:
        lines = look_below(folder, seen)
        if as_json:
            print(_json(lines), flush=True)
        else:
            _print(lines)
            print(time.strftime("%H:%M:%S"), flush=True)
        time.sleep(INTERVAL)


def look_below(folder: Path, seen: Seen) -> list[Line]:
    """A line for each run at or below a folder, the one that wrote last first.

    Args:
        folder: where to look.
        seen: what an earlier look found, so that runs whose files stand still are not read again; brought up to date.
    """
    lines = []
    for path in own_folders(folder):
        stamp = _stamp(path)
        if path not in seen or seen[path][0] != stamp:
            seen[path] = stamp, _line(path, folder)
        lines.append(replace(seen[path][1], age=max(0.0, time.time() - stamp.written)))
    return sorted(lines, key=lambda line: line.age)


def _stamp(path: Path) -> Stamp:
    changed = tuple((path / name).stat().st_mtime if (path / name).exists() else 0.0 for name in FILES)
    return Stamp(changed, holder(path) is not None)


def _line(path: Path, below: Path) -> Line:
    name = str(path.relative_to(below)) if path != below else str(path)
    try:
        seen = look(path)
        rows = read(path / METRICS)
        best = None if seen.state == "running" else read_summary(path).get("best_return")
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        return Line(name, None, None, None, "unreadable", 0, None, None, None, None, 0.0, why)
    recent = tag("episode_return_recent")
    returns = [row[recent] for row in rows if recent in row]
    last = returns[-1] if returns else None
    return Line(
        run=name,
        env=seen.env,
        algo=seen.algo,
        seed=seen.seed,
        state=seen.state,
        steps=seen.steps,
        total_steps=seen.total_steps,
        recent_return=last if seen.final_return is None else seen.final_return,
        best_return=max(returns, default=None) if best is None else best,
        steps_per_second=seen.steps / seen.seconds if seen.seconds > 0 else None,
        age=0.0,
        error=seen.error,
    )


def _print(lines: Sequence[Line]) -> None:
    """Print the table: as wide as a terminal, and with everything in it elsewhere."""
    console = Console() if sys.stdout.isatty() else Console(color_system=None)
    width = console.width if sys.stdout.isatty() else None
    for line in table(lines, width, console.options.ascii_only):
        console.print(line, soft_wrap=True)


def _screen(lines: Sequence[Line], console: Console) -> Group:
    return Group(*table(lines, console.width, console.options.ascii_only))


def _json(lines: Sequence[Line]) -> str:
    return json.dumps([finite(asdict(line)) for line in lines], allow_nan=False)
