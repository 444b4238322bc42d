"""Loggers of metrics: JSON lines, TensorBoard, Weights & Biases and the console."""

from typing import Any, NamedTuple, Protocol

from pgx.core.agent import Metrics


class VideoClip(NamedTuple):
    """A short video."""

    gif: bytes  # animated
    width: int  # pixels
    height: int


class Logger(Protocol):
    """Logger of the tagged metrics of each iteration and of the summary of the run.

    Raises:
        OSError: of every method: nothing was written; the same call can be repeated.
    """

    def write(self, steps: int, metrics: Metrics) -> None: ...
    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Log a video of the agent after `steps` environment steps."""
        ...

    def flush(self) -> None:
        """Flush written data to disk."""
        ...

    def finish(self, summary: dict[str, Any]) -> None:
        """Log the summary of the run."""
        ...

    def close(self) -> None:
        """Close the logger."""
        ...
