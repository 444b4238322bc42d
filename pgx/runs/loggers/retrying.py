"""Logger that keeps rows in memory while the disk is full."""

from collections import deque
from collections.abc import Callable
from typing import Any

from pgx.core.agent import Metrics
from pgx.runs.loggers import Logger, VideoClip

MAX_ROWS = 20_000  # kept in memory, some 4 KB each; the oldest of more rows are lost


class RetryingLogger:
    """Logger that keeps rows that another logger cannot write, and retries with every new row.

    Args:
        logger: logger that writes to disk.
        name: name of its output, for messages.
        warn: called when writing begins to fail, and when all rows are written.
    """

    def __init__(self, logger: Logger, name: str, warn: Callable[[str], None]) -> None:
        self._logger = logger
        self._name = name
        self._warn = warn
        self._pending: deque[tuple[int, Metrics]] = deque(maxlen=MAX_ROWS)
        self._failing = False
        self._lost = 0

    def write(self, steps: int, metrics: Metrics) -> None:
        self._lost += len(self._pending) == MAX_ROWS
        self._pending.append((steps, metrics))
        try:
            self._drain()
        except OSError as error:
            self._begin_waiting(error)

    def _drain(self) -> None:
        while self._pending:
            self._logger.write(*self._pending[0])
            self._pending.popleft()
        if self._failing:
            self._failing = False
            lost = f"; {self._lost:,} rows were lost" if self._lost else ""
            self._lost = 0
            self._warn(f"{self._name}: written again{lost}")

    def _begin_waiting(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._warn(
                f"{self._name}: cannot be written ({error.strerror}); training continues, rows are kept in memory"
            )

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Write a video, or drop it if the disk is full: it is as large as hundreds of rows."""
        try:
            self._drain()
            self._logger.write_video(steps, clip)
        except OSError as error:
            self._begin_waiting(error)

    def flush(self) -> None:
        self._drain()
        self._logger.flush()

    def finish(self, summary: dict[str, Any]) -> None:
        self._drain()
        self._logger.finish(summary)

    def close(self) -> None:
        self._logger.close()
