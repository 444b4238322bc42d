"""Progress of episodes that are played, on the error stream."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from pgx.training.evaluation import OnStep

INTERVAL = 10.0  # seconds between lines where the error stream is not a terminal
REDRAW = 0.2  # seconds between drawings of the line where it is one


@contextmanager
def live_progress(episodes: int) -> Iterator[OnStep]:
    """Show progress: one line that is redrawn on a terminal, elsewhere a line every 10 seconds.

    Args:
        episodes: that are to be played.

    Yields:
        What is told of each step.
    """
    if not sys.stderr.isatty():
        yield line_progress("", episodes, INTERVAL)
        return
    drawn = False

    def draw(line: str) -> None:
        nonlocal drawn
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        drawn = True

    try:
        yield _progress("", episodes, REDRAW, draw)
    finally:
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def line_progress(prefix: str, episodes: int, interval: float) -> OnStep:
    """Return what prints a line of progress every `interval` seconds; nothing for what is over before."""
    return _progress(prefix, episodes, interval, _print)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _progress(prefix: str, episodes: int, interval: float, write: Callable[[str], None]) -> OnStep:
    started = said = time.monotonic()

    def on_step(played: int, steps: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= interval:
            said = now
            seconds = now - started
            left = timedelta(seconds=round(seconds / played * (episodes - played))) if played else "-"
            count = f"{played:,}/{episodes:,} episodes  {steps:,} steps"
            write(f"{prefix}{count}  {steps / seconds:,.0f} steps/s  eta {left}")

    return on_step
