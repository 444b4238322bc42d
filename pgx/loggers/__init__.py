"""Sinks of metrics: TensorBoard, JSON lines, the console."""

from typing import Any, Protocol

from pgx.types import Metrics


class Sink(Protocol):
    """Takes the tagged metrics of an iteration, and at the end the summary of the run.

    Raises:
        OSError: of every method: it could not be written, and nothing of it was; the same call can be made again.
    """

    def write(self, steps: int, metrics: Metrics) -> None: ...
    def settle(self) -> None:
        """Have the disk hold what was written."""
        ...

    def finish(self, summary: dict[str, Any]) -> None:
        """Say how the run ended."""
        ...

    def close(self) -> None:
        """Nothing comes any more."""
        ...
