"""Sinks of metrics: TensorBoard, JSON lines, the console."""

from typing import Any, NamedTuple, Protocol

from pgx.core.agent import Metrics


class VideoClip(NamedTuple):
    """A short video."""

    gif: bytes  # animated
    width: int  # pixels
    height: int


class Logger(Protocol):
    """Takes the tagged metrics of an iteration, and at the end the summary of the run.

    Raises:
        OSError: of every method: it could not be written, and nothing of it was; the same call can be made again.
    """

    def write(self, steps: int, metrics: Metrics) -> None: ...
    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Show a video of the agent after so many steps."""
        ...

    def flush(self) -> None:
        """Have the disk hold what was written."""
        ...

    def finish(self, summary: dict[str, Any]) -> None:
        """Say how the run ended."""
        ...

    def close(self) -> None:
        """Nothing comes any more."""
        ...
