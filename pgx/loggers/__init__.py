"""Sinks of metrics: TensorBoard, JSON lines, the console."""

from typing import Any, Protocol

from pgx.types import Metrics


class Sink(Protocol):
    """Takes the tagged metrics of an iteration, and at the end the summary of the run."""

    def write(self, steps: int, metrics: Metrics) -> None: ...
    def close(self, summary: dict[str, Any]) -> None: ...
