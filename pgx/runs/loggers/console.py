"""Console output of a run: a live panel on a terminal or in a notebook, otherwise a line at intervals."""

import importlib
import io
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pgx.config.run_config import ConsoleStyle
from pgx.core.agent import Metrics
from pgx.core.text import format_number
from pgx.runs.loggers import VideoClip

Row = tuple[str, str, Callable[[float], str]]  # label, tag, and format of the number

PANEL: dict[str, tuple[Row, ...]] = {
    "rollout": (
        ("return", "rollout/episode_return", format_number),
        ("return, last 20", "rollout/episode_return_recent", format_number),
        ("length", "rollout/episode_length", "{:,.0f}".format),
        ("episodes", "rollout/episodes", "{:.0f}".format),
        ("eval return", "eval/episode_return", format_number),
    ),
    "share of time": (
        ("environment", "time/environment_fraction", "{:.0%}".format),
        ("policy", "time/policy_fraction", "{:.0%}".format),
        ("update", "time/update_fraction", "{:.0%}".format),
    ),
    "health": (
        ("KL", "health/kl", "{:.5f}".format),
        ("KL, largest", "health/kl_max", "{:.4f}".format),
        ("entropy", "health/entropy", "{:.3f}".format),
        ("sample size", "health/ess", "{:.1%}".format),
        ("clip fraction", "health/clip_fraction", "{:.1%}".format),
        ("explained var.", "health/explained_variance", "{:.3f}".format),
        ("gain, predicted", "health/predicted_gain", "{:.5f}".format),
        ("gain, actual", "health/surrogate_gain", "{:.5f}".format),
    ),
    "rule": (
        ("line search", "algo/line_search_steps", "{:.0f}".format),
        ("step fraction", "algo/line_search_fraction", "{:.2f}".format),
        ("CG residual", "algo/cg_residual", "{:.1e}".format),
        ("CG steps", "algo/cg_steps", "{:.0f}".format),
        ("beta", "algo/beta", "{:.3g}".format),
        ("step size", "algo/step_size", "{:.3g}".format),
        ("auxiliary KL", "algo/auxiliary_kl", "{:.5f}".format),
        ("behaviour KL", "algo/behaviour_kl", "{:.5f}".format),
        ("weights in effect", "algo/weight_ess", "{:.1%}".format),
        ("epochs", "algo/epochs", "{:.0f}".format),
        ("learning rate", "algo/learning_rate", "{:.1e}".format),
        ("critic loss", "algo/critic_loss", "{:.4g}".format),
        ("gradient norm", "health/gradient_norm", "{:.3g}".format),
    ),
}

# Blocks of each column, on wide and on narrow terminals.
_WIDE = (("rollout", "share of time"), ("health",), ("rule",))
_NARROW = (("rollout", "share of time", "rule"), ("health",))
WIDE_TERMINAL = 80  # characters

_LINE: tuple[Row, ...] = (
    ("return", "rollout/episode_return_recent", format_number),
    ("eval", "eval/episode_return", format_number),
    ("kl", "health/kl", "{:.4f}".format),
    ("ess", "health/ess", "{:.2f}".format),
    ("entropy", "health/entropy", "{:.2f}".format),
    ("ev", "health/explained_variance", "{:.2f}".format),
)


def make_console(
    style: ConsoleStyle, interval: float, first_step: int, total_steps: int
) -> "LiveConsole | NotebookConsole | PlainConsole | None":
    """Return the console of a style; auto: live on a terminal or in a notebook, plain otherwise."""
    console = Console(file=sys.stdout)  # explicit, so that Rich uses the encoding of the stream
    if style == "off":
        return None
    if style in ("live", "auto") and in_notebook():
        return NotebookConsole(first_step, total_steps)
    if style == "live" or (style == "auto" and console.is_terminal):
        return LiveConsole(console, first_step, total_steps)
    return PlainConsole(interval, first_step, total_steps)


def in_notebook() -> bool:
    """Return whether the main thread of a Jupyter kernel runs this code: other threads have no cell to display in."""
    shell = sys.modules.get("IPython")
    kernel = None if shell is None else getattr(shell.get_ipython(), "kernel", None)
    return kernel is not None and threading.current_thread() is threading.main_thread()


class LivePanel:
    """Progress bar with ETA over a table of the latest metrics."""

    def __init__(self, console: Console, first_step: int, total_steps: int) -> None:
        self._latest: Metrics = {}
        self._console = console
        steps = TextColumn(
            f"{{task.fields[steps]:>{len(f'{total_steps:,}')},.0f}} / {{task.total:,.0f}} steps"
        )
        columns: tuple[ProgressColumn, ...] = (steps, _Rate(), _Eta())
        if console.width >= WIDE_TERMINAL:
            percent = TextColumn("{task.percentage:>3.0f}%")
            columns = (steps, BarColumn(bar_width=None), percent, _Rate(), TimeElapsedColumn(), _Eta())
        self._progress = Progress(*columns, console=console, expand=True)
        self._task = self._progress.add_task("train", total=total_steps, steps=first_step)
        self._clock = _Clock(first_step, total_steps)

    def updated(self, steps: int, metrics: Metrics) -> Group:
        """Return the panel after a row of metrics."""
        self._latest.update(metrics)
        rate, eta = self._clock.at(steps)
        done = min(steps, self._clock.total_steps)  # the last update may exceed the budget
        self._progress.update(self._task, completed=done, steps=steps, rate=rate, eta=eta)
        return Group(self._progress, self._table())

    def _table(self) -> Table:
        grid = Table.grid(expand=True, padding=(0, 1))
        columns = _WIDE if self._console.width >= WIDE_TERMINAL else _NARROW
        for _ in columns:
            grid.add_column(ratio=1)
        grid.add_row(*(Group(*filter(None, map(self._block, names))) for names in columns))
        return grid

    def _block(self, name: str) -> Table | None:
        """Return a heading over its metrics; None where none of them is known."""
        block = Table(
            title=name,
            title_justify="left",
            title_style="bold",
            show_header=False,
            box=None,
            padding=(0, 1, 0, 0),
        )
        block.add_column(style="dim", no_wrap=True)
        block.add_column(justify="right", style="cyan", no_wrap=True)
        for label, tag, form in PANEL[name]:
            if tag in self._latest:
                block.add_row(label, form(self._latest[tag]))
        return block if block.row_count else None


class LiveConsole:
    """Panel on a terminal, redrawn in place."""

    def __init__(self, console: Console, first_step: int, total_steps: int) -> None:
        self._panel = LivePanel(console, first_step, total_steps)
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def write(self, steps: int, metrics: Metrics) -> None:
        self._live.update(self._panel.updated(steps, metrics), refresh=True)

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Ignore the video: a terminal cannot show it."""

    def flush(self) -> None:
        """Do nothing: output is not stored."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Ignore the summary: the command prints it below the panel."""

    def close(self) -> None:
        self._live.stop()


_REDRAW_SECONDS = 0.2  # between updates of the panel in a notebook, each a message to the browser
_NOTEBOOK_COLUMNS = 100  # characters


class NotebookConsole:
    """Panel in the output of a notebook's cell, redrawn in place."""

    def __init__(self, first_step: int, total_steps: int) -> None:
        self._drawing = Console(file=io.StringIO(), record=True, width=_NOTEBOOK_COLUMNS, force_jupyter=False)
        self._panel = LivePanel(self._drawing, first_step, total_steps)
        self._display: Any = None  # handle of the output
        self._drawn_at = -float("inf")
        self._pending: Group | None = None

    def write(self, steps: int, metrics: Metrics) -> None:
        self._pending = self._panel.updated(steps, metrics)
        if time.monotonic() - self._drawn_at >= _REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        if self._pending is None:
            return
        self._drawing.print(self._pending)
        page = self._drawing.export_html(inline_styles=True, code_format="<pre>{code}</pre>", clear=False)
        shown = {"text/html": page, "text/plain": self._drawing.export_text()}
        self._pending, self._drawn_at = None, time.monotonic()
        if self._display is None:
            display = importlib.import_module("IPython.display").display
            self._display = display(shown, raw=True, display_id=True)
        else:
            self._display.update(shown, raw=True)

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Ignore the video: it is in TensorBoard."""

    def flush(self) -> None:
        """Do nothing: output is not stored."""

    def finish(self, summary: dict[str, Any]) -> None:
        self._draw()

    def close(self) -> None:
        """Do nothing: `finish` draws the last panel."""


class PlainConsole:
    """Console that prints at most one line every `interval` seconds and one at the end, without colours."""

    def __init__(self, interval: float, first_step: int, total_steps: int) -> None:
        self._interval = interval
        self._clock = _Clock(first_step, total_steps)
        self._printed_at = -float("inf")
        self._pending_line: str | None = None
        self._latest: Metrics = {}

    def write(self, steps: int, metrics: Metrics) -> None:
        self._latest.update(metrics)
        rate, eta = self._clock.at(steps)
        total = self._clock.total_steps
        parts = [f"{label} {form(self._latest[tag])}" for label, tag, form in _LINE if tag in self._latest]
        self._pending_line = (
            f"{steps:>{len(f'{total:,}')},}/{total:,} {min(1.0, steps / total):>4.0%}  {'  '.join(parts)}  "
            f"{rate:,.0f} steps/s  {_eta(eta)}"
        )
        if time.monotonic() - self._printed_at >= self._interval:
            self._print()

    def _print(self) -> None:
        if self._pending_line is not None:
            print(self._pending_line, flush=True)
            self._pending_line, self._printed_at = None, time.monotonic()

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Ignore the video: a terminal cannot show it."""

    def flush(self) -> None:
        """Do nothing: lines are flushed when printed."""

    def finish(self, summary: dict[str, Any]) -> None:
        self._print()

    def close(self) -> None:
        """Do nothing: `finish` prints the last line."""


class _Clock:
    """Rate and remaining time of a run, measured since this process started or resumed it."""

    def __init__(self, first_step: int, total_steps: int) -> None:
        self.total_steps = total_steps
        self._since = first_step, time.monotonic()
        self._rate = 0.0
        self._first = True  # no row so far

    def at(self, steps: int) -> tuple[float, float | None]:
        """Return the steps per second so far and the remaining seconds.

        Programs are compiled before the first row. Its time is therefore ignored, and its remaining time is None.
        """
        now, (step, moment) = time.monotonic(), self._since
        first, self._first = self._first, False
        if first or steps > step:
            self._rate = (steps - step) / max(now - moment, 1e-9)
        if first:
            self._since = steps, now
        if steps >= self.total_steps:
            return self._rate, 0.0
        known = self._rate > 0 and not first
        return self._rate, (self.total_steps - steps) / self._rate if known else None


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields.get('rate', 0):,.0f} steps/s", style="green")


class _Eta(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_eta(task.fields.get("eta")), style="magenta")


def _eta(seconds: float | None) -> str:
    return f"eta {'-' if seconds is None else format_seconds(seconds)}"


def format_seconds(seconds: float) -> str:
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
