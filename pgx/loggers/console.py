"""What a person sees of a run: a live panel on a terminal, a line now and then in a pipe or in CI."""

import time
from typing import Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pgx.types import Metrics

ConsoleStyle = Literal["auto", "live", "plain", "off"]

_PANEL = (  # (heading, rows of (label, tag, format))
    (
        "rollout",
        (
            ("return", "rollout/episode_return", "{:,.1f}"),
            ("return, last 20", "rollout/episode_return_recent", "{:,.1f}"),
            ("length", "rollout/episode_length", "{:,.0f}"),
            ("episodes", "rollout/episodes", "{:.0f}"),
            ("eval return", "eval/episode_return", "{:,.1f}"),
            ("environment", "time/environment_share", "{:.0%}"),
            ("policy", "time/policy_share", "{:.0%}"),
            ("update", "time/update_share", "{:.0%}"),
        ),
    ),
    (
        "health",
        (
            ("KL", "health/kl", "{:.5f}"),
            ("KL, largest", "health/kl_max", "{:.4f}"),
            ("entropy", "health/entropy", "{:.3f}"),
            ("sample size", "health/ess", "{:.1%}"),
            ("clip fraction", "health/clip_fraction", "{:.1%}"),
            ("explained var.", "health/explained_variance", "{:.3f}"),
            ("gain, predicted", "health/predicted_gain", "{:.5f}"),
            ("gain, actual", "health/surrogate_gain", "{:.5f}"),
        ),
    ),
    (
        "rule",
        (
            ("line search", "algo/line_search_steps", "{:.0f}"),
            ("step fraction", "algo/line_search_fraction", "{:.2f}"),
            ("CG residual", "algo/cg_residual", "{:.1e}"),
            ("CG steps", "algo/cg_steps", "{:.0f}"),
            ("epochs", "algo/epochs", "{:.0f}"),
            ("learning rate", "algo/learning_rate", "{:.1e}"),
            ("critic loss", "algo/critic_loss", "{:.4g}"),
            ("gradient norm", "health/gradient_norm", "{:.3g}"),
        ),
    ),
)

_LINE = (
    ("return", "rollout/episode_return_recent", "{:.1f}"),
    ("eval", "eval/episode_return", "{:.1f}"),
    ("kl", "health/kl", "{:.4f}"),
    ("ess", "health/ess", "{:.2f}"),
    ("entropy", "health/entropy", "{:.2f}"),
    ("ev", "health/explained_variance", "{:.2f}"),
)


def make_console(
    style: ConsoleStyle, interval: float, first_step: int, total_steps: int
) -> "LiveConsole | PlainConsole | None":
    """The console for where output goes: live on a terminal, plain elsewhere, unless a style is named."""
    console = Console()
    if style == "off":
        return None
    if style == "live" or (style == "auto" and console.is_terminal):
        return LiveConsole(console, first_step, total_steps)
    return PlainConsole(interval, first_step, total_steps)


class LiveConsole:
    """Progress bar with ETA over a table of the latest metrics, redrawn in place."""

    def __init__(self, console: Console, first_step: int, total_steps: int) -> None:
        self._latest: Metrics = {}
        self._progress = Progress(
            TextColumn("{task.completed:>11,.0f} / {task.total:,.0f} steps"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _Rate(),
            TimeElapsedColumn(),
            _Eta(),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("train", total=total_steps)
        self._clock = _Clock(first_step, total_steps)
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def write(self, steps: int, metrics: Metrics) -> None:
        self._latest.update(metrics)
        rate, eta = self._clock.at(steps)
        self._progress.update(self._task, completed=min(steps, self._clock.total_steps), rate=rate, eta=eta)
        self._live.update(Group(self._progress, self._table()), refresh=True)

    def _table(self) -> Table:
        grid = Table.grid(expand=True, padding=(0, 2))
        cells = []
        for heading, rows in _PANEL:
            column = Table(
                title=heading, title_justify="left", title_style="bold", show_header=False, box=None
            )
            column.add_column(style="dim")
            column.add_column(justify="right", style="cyan")
            for label, tag, form in rows:
                if tag in self._latest:
                    column.add_row(label, form.format(self._latest[tag]))
            cells.append(column)
            grid.add_column(ratio=1)
        grid.add_row(*cells)
        return grid

    def close(self, summary: dict[str, Any]) -> None:
        self._live.stop()


class PlainConsole:
    """One line at most every `interval` seconds, and one for the last state; no colour, no cursor movement."""

    def __init__(self, interval: float, first_step: int, total_steps: int) -> None:
        self._interval = interval
        self._clock = _Clock(first_step, total_steps)
        self._spoke = -float("inf")
        self._unsaid: str | None = None
        self._latest: Metrics = {}

    def write(self, steps: int, metrics: Metrics) -> None:
        self._latest.update(metrics)
        rate, eta = self._clock.at(steps)
        total = self._clock.total_steps
        parts = [
            f"{label} {form.format(self._latest[tag])}" for label, tag, form in _LINE if tag in self._latest
        ]
        self._unsaid = (
            f"{steps:>{len(f'{total:,}')},}/{total:,} {min(1.0, steps / total):>4.0%}  {'  '.join(parts)}  "
            f"{rate:,.0f} steps/s  eta {_clock_face(eta)}"
        )
        if time.monotonic() - self._spoke >= self._interval:
            self._say()

    def _say(self) -> None:
        if self._unsaid is not None:
            print(self._unsaid, flush=True)
            self._unsaid, self._spoke = None, time.monotonic()

    def close(self, summary: dict[str, Any]) -> None:
        self._say()


class _Clock:
    """Rate and remaining time of this life of a run, which may have begun with steps already done."""

    def __init__(self, first_step: int, total_steps: int) -> None:
        self.total_steps = total_steps
        self._first_step = first_step
        self._started = time.monotonic()

    def at(self, steps: int) -> tuple[float, float]:
        """Steps per second so far, and seconds to go."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (steps - self._first_step) / elapsed
        return rate, max(0, self.total_steps - steps) / max(rate, 1e-9)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields.get('rate', 0):,.0f} steps/s", style="green")


class _Eta(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"eta {_clock_face(task.fields.get('eta', 0))}", style="magenta")


def _clock_face(seconds: float) -> str:
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
