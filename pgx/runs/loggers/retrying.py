"""A sink that a full disk holds up but does not stop."""

from collections import deque
from collections.abc import Callable
from typing import Any

from pgx.core.agent import Metrics
from pgx.runs.loggers import Clip, Sink

ROWS = 20_000  # kept in memory until they can be written, some 4 KB each; of more, the oldest are lost


class RetryingLogger:
    """Keeps what a sink cannot write, and tries again with every row that comes.

    Args:
        sink: that writes to a disk.
        name: what it writes, in words.
        warn: told when writing begins to fail, and when all is written.
    """

    def __init__(self, sink: Sink, name: str, warn: Callable[[str], None]) -> None:
        self._sink = sink
        self._name = name
        self._warn = warn
        self._waiting: deque[tuple[int, Metrics]] = deque(maxlen=ROWS)
        self._held_up = False
        self._lost = 0

    def write(self, steps: int, metrics: Metrics) -> None:
        self._lost += len(self._waiting) == ROWS
        self._waiting.append((steps, metrics))
        try:
            self._drain()
        except OSError as error:
            self._begin_waiting(error)

    def _drain(self) -> None:
        while self._waiting:
            self._sink.write(*self._waiting[0])
            self._waiting.popleft()
        if self._held_up:
            self._held_up = False
            lost = f"; {self._lost:,} rows were lost meanwhile" if self._lost else ""
            self._lost = 0
            self._warn(f"{self._name}: written again{lost}")

    def _begin_waiting(self, error: OSError) -> None:
        if not self._held_up:
            self._held_up = True
            self._warn(f"{self._name}: cannot be written ({error.strerror}); training goes on, rows are kept")

    def film(self, steps: int, clip: Clip) -> None:
        """A video that cannot be written now is let go: it is as large as hundreds of rows, and no number is in it."""
        try:
            self._drain()
            self._sink.film(steps, clip)
        except OSError as error:
            self._begin_waiting(error)

    def settle(self) -> None:
        self._drain()
        self._sink.settle()

    def finish(self, summary: dict[str, Any]) -> None:
        self._drain()
        self._sink.finish(summary)

    def close(self) -> None:
        self._sink.close()
