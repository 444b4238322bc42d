"""Stored data of a run: in its folder, or in memory."""

import io
from pathlib import Path
from typing import Any, Protocol

import torch

from pgx.analysis.reading import RecordedRun, UnreadableError, read_pgx_run, recorded_run
from pgx.config.run_config import RunConfig
from pgx.core.agent import State
from pgx.core.errors import UserError
from pgx.runs.checkpoints import Checkpoints
from pgx.runs.loggers.jsonl import METRICS, read_rows
from pgx.runs.writer import MemoryWriter, read_summary


class RunData(Protocol):
    """Stored data of a run."""

    @property
    def run_dir(self) -> Path | None:
        """Return the folder of the run; None: it is in memory."""
        ...

    def rows(self) -> list[dict[str, Any]]:
        """Return the logged rows: `step` and metrics by tag."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return the summary; empty while the run has not ended."""
        ...

    def state(self, checkpoint: str) -> State:
        """Return the state of a checkpoint.

        Raises:
            UserError: there is none of this name.
        """
        ...

    def recorded(self) -> RecordedRun:
        """Return the run as `compare` reads it.

        Raises:
            UserError: it has no row of metrics.
        """
        ...


class FolderData:
    """Data of a run in its folder."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.run_dir / METRICS)

    def summary(self) -> dict[str, Any]:
        return read_summary(self.run_dir)

    def state(self, checkpoint: str) -> State:
        return Checkpoints(self.run_dir).load(checkpoint)

    def recorded(self) -> RecordedRun:
        try:
            return read_pgx_run(self.run_dir)
        except UnreadableError as error:
            raise UserError(str(error)) from error


class MemoryData:
    """Data of a run that has no folder."""

    run_dir = None

    def __init__(self, writer: MemoryWriter, config: RunConfig) -> None:
        self.writer = writer
        self._config = config

    def rows(self) -> list[dict[str, Any]]:
        return self.writer.rows

    def summary(self) -> dict[str, Any]:
        return self.writer.summary

    def state(self, checkpoint: str) -> State:
        there = self.writer.checkpoints
        if checkpoint not in there:
            raise UserError(
                f"{checkpoint}: no such checkpoint; the run in memory has: {', '.join(there) or 'none'}"
            )
        state: State = torch.load(io.BytesIO(there[checkpoint]), weights_only=True)
        return state

    def recorded(self) -> RecordedRun:
        if not self.writer.rows:
            raise UserError("the run in memory has no row of metrics")
        # The folder only names the run; runs in memory of one process differ by the address of their data.
        name = Path(f"memory-{id(self.writer):x}")
        return recorded_run(name, self.writer.rows, self._config.values, self.writer.summary, running=False)
