"""Writers of a run: to its folder, with retries on a full disk, or to memory."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pgx.config.stored import pgx_command
from pgx.core.agent import Metrics
from pgx.core.errors import RunError, UserError
from pgx.runs.checkpoints import BEST, LAST, Checkpoints, checkpoint_name, write_atomically
from pgx.runs.loggers import Logger, VideoClip
from pgx.runs.loggers.jsonl import METRICS, decode_nonfinite, encode_nonfinite, read_rows

SUMMARY = "summary.json"
RETRY_INTERVAL = 1.0  # seconds between attempts to write to a full disk


@dataclass(frozen=True)
class PendingCheckpoint:
    """Serialized checkpoint that is not on disk yet."""

    steps: int
    state: bytes
    best: bytes | None  # best checkpoint to write with it


class Writer(Protocol):
    """Writer of the rows, videos, checkpoints and summary of a run."""

    @property
    def run_dir(self) -> Path | None:
        """Return the folder of the run; None: nothing is written to disk."""
        ...

    @property
    def config(self) -> str:
        """Return the resolved config as YAML."""
        ...

    @property
    def warn(self) -> Callable[[str], None]:
        """Return the function that prints a warning."""
        ...

    def open(self, steps: int | None, rows: int) -> None:
        """Open the loggers of a run after `steps` environment steps (None: a new run) and `rows` logged rows."""
        ...

    def write_row(self, steps: int, metrics: Metrics) -> None:
        """Log the metrics of an iteration, by tag."""
        ...

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Log a video."""
        ...

    def write_checkpoint(self, pending: PendingCheckpoint) -> None:
        """Write a checkpoint, now or later."""
        ...

    def retry_checkpoint(self) -> None:
        """Retry to write a pending checkpoint."""
        ...

    def finish(self, summary: dict[str, Any], wait_for_disk: bool) -> None:
        """Write pending data and the summary, and close the loggers."""
        ...


class MemoryWriter:
    """Writer that keeps the rows, the last checkpoint and the summary of a run in memory.

    Args:
        config: resolved config as YAML.
        open_loggers: opens the loggers, given the environment steps (None: a new run) and the logged rows.
        warn: prints a warning.
    """

    run_dir = None

    def __init__(
        self,
        config: str,
        open_loggers: Callable[[int | None, int], Sequence[Logger]],
        warn: Callable[[str], None],
    ) -> None:
        self.config = config
        self.open_loggers = open_loggers
        self.warn = warn
        self.rows: list[dict[str, Any]] = []  # `step` and metrics by tag
        self.summary: dict[str, Any] = {}
        self.checkpoints: dict[str, bytes] = {}  # serialized, by name: last and best
        self._loggers: Sequence[Logger] = ()

    def open(self, steps: int | None, rows: int) -> None:
        """Open the loggers; drop the rows after the first `rows`."""
        del self.rows[rows:]
        self._loggers = self.open_loggers(steps, rows)

    def write_row(self, steps: int, metrics: Metrics) -> None:
        self.rows.append({"step": steps, **metrics})
        for logger in self._loggers:
            logger.write(steps, metrics)

    def write_video(self, steps: int, clip: VideoClip) -> None:
        for logger in self._loggers:
            logger.write_video(steps, clip)

    def write_checkpoint(self, pending: PendingCheckpoint) -> None:
        if pending.best is not None:
            self.checkpoints[BEST] = pending.best
        self.checkpoints[LAST] = pending.state

    def retry_checkpoint(self) -> None:
        """Do nothing: no checkpoint is pending."""

    def finish(self, summary: dict[str, Any], wait_for_disk: bool) -> None:
        self.summary = summary
        try:
            for logger in self._loggers:
                logger.finish(summary)
        finally:
            for logger in self._loggers:
                logger.close()


class RunWriter:
    """Only writer of a run's folder. While the disk is full, data is kept in memory and training continues.

    Args:
        run_dir: folder of the run.
        config: resolved config as YAML.
        checkpoints: checkpoints of the folder.
        open_loggers: opens the loggers, given the environment steps (None: a new run) and the logged rows.
        retry_seconds: seconds that the end of a run retries a disk that cannot be written.
        warn: called when writing begins to fail and when it succeeds again.
    """

    def __init__(
        self,
        run_dir: Path,
        config: str,
        checkpoints: Checkpoints,
        open_loggers: Callable[[int | None, int], Sequence[Logger]],
        retry_seconds: float,
        warn: Callable[[str], None],
    ) -> None:
        self.run_dir = run_dir
        self.config = config
        self.checkpoints = checkpoints
        self.open_loggers = open_loggers
        self.retry_seconds = retry_seconds
        self.warn = warn
        self._loggers: Sequence[Logger] = ()
        self._pending: PendingCheckpoint | None = None
        self._tried_at = 0.0  # when it was last tried
        self._failing = False

    def open(self, steps: int | None, rows: int) -> None:
        """Open the folder of a run after `steps` environment steps (None: a new run) and `rows` logged rows."""
        # If this process is killed, the summary of a previous one must not describe the run.
        (self.run_dir / SUMMARY).unlink(missing_ok=True)
        write_atomically(self.run_dir / "config.yaml", self.config.encode())
        self._loggers = self.open_loggers(steps, rows)
        lost = rows - len(read_rows(self.run_dir / METRICS))
        if lost > 0:
            self.warn(
                f"{METRICS}: {lost:,} of the {rows:,} rows before the checkpoint are missing or damaged"
            )

    def write_row(self, steps: int, metrics: Metrics) -> None:
        """Log the metrics of an iteration, by tag."""
        for logger in self._loggers:
            logger.write(steps, metrics)

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Log a video."""
        for logger in self._loggers:
            logger.write_video(steps, clip)

    def write_checkpoint(self, pending: PendingCheckpoint) -> None:
        """Write a checkpoint now or when the disk allows. First try to write a pending one, which it replaces."""
        self._tried_at = 0.0
        self.retry_checkpoint()
        self._pending, self._tried_at = pending, 0.0
        self.retry_checkpoint()

    def retry_checkpoint(self) -> None:
        """Retry to write the pending checkpoint, if the retry interval is over."""
        if self._pending is None or time.monotonic() - self._tried_at < RETRY_INTERVAL:
            return
        self._tried_at = time.monotonic()
        try:
            self._write_pending()
        except OSError as error:
            if not self._failing:
                self._failing = True
                self.warn(
                    f"checkpoint: cannot be written ({error.strerror}); training continues, pgx retries"
                )

    def _write_pending(self) -> None:
        """Flush rows, then write `best`, then `last`: a resumed run needs both."""
        if self._pending is None:
            return
        for logger in self._loggers:
            logger.flush()
        if self._pending.best is not None:
            self.checkpoints.save(self._pending.best, [BEST])
        self.checkpoints.save(self._pending.state, [checkpoint_name(self._pending.steps), LAST])
        if self._failing:
            self._failing = False
            self.warn("checkpoint: written")
        self._pending = None

    def finish(self, summary: dict[str, Any], wait_for_disk: bool) -> None:
        """Write pending data and the summary, and close the loggers.

        Args:
            summary: contents of summary.json.
            wait_for_disk: retry for `retry_seconds` if the disk cannot be written; otherwise warn, since the user is
                about to see another error.

        Raises:
            RunError: the disk could not be written within `retry_seconds`.
        """
        text = (json.dumps(encode_nonfinite(summary), indent=2, allow_nan=False) + "\n").encode()
        todo: list[Callable[[], None]] = [self._write_pending]
        todo += [_finishing(logger, summary) for logger in self._loggers]
        todo.append(lambda: write_atomically(self.run_dir / SUMMARY, text))
        try:
            if wait_for_disk:
                self._retry(todo, time.monotonic() + self.retry_seconds)
            else:
                self._try_once(todo)
        finally:
            for logger in self._loggers:
                logger.close()

    def _try_once(self, todo: list[Callable[[], None]]) -> None:
        """Run each action once, in order; warn if the disk cannot be written."""
        try:
            for action in todo:
                action()
        except OSError as error:
            self.warn(_refused(self.run_dir, error))

    def _retry(self, todo: list[Callable[[], None]], give_up: float) -> None:
        """Run the actions in order; retry each until it succeeds or the deadline passes."""
        warned = False
        while todo:
            try:
                todo[0]()
                todo.pop(0)
            except OSError as error:
                left = give_up - time.monotonic()
                if left <= 0:
                    raise RunError(_refused(self.run_dir, error)) from error
                if not warned:
                    warned = True
                    self.warn(
                        f"{self.run_dir}: cannot be written ({error.strerror}); training has ended; retrying for "
                        f"{left:,.0f} s (trainer.disk_retry_seconds); press Ctrl-C to stop"
                    )
                time.sleep(min(RETRY_INTERVAL, left))


def _refused(run_dir: Path, error: OSError) -> str:
    return f"{run_dir}: cannot be written ({error.strerror}); its files are complete but older than the end of the run"


def _finishing(logger: Logger, summary: dict[str, Any]) -> Callable[[], None]:
    return lambda: logger.finish(summary)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Return the summary of a run; empty if it has none or a damaged one."""
    try:
        found = json.loads((run_dir / SUMMARY).read_text())
    except (OSError, ValueError):
        return {}
    return decode_nonfinite(found) if isinstance(found, dict) else {}


def print_warning(line: str) -> None:
    """Print a warning to the error stream."""
    print(f"pgx: {line}", file=sys.stderr, flush=True)


def refuse_existing_run(run_dir: Path) -> None:
    """Check that a folder contains no run.

    Raises:
        UserError: it contains a run.
    """
    if (run_dir / "metrics.jsonl").exists() or (run_dir / "checkpoints").exists():
        raise UserError(
            f"run_dir={run_dir}: contains a run; choose another folder, or resume the run: "
            f"{pgx_command('train', '--resume', run_dir, of=run_dir)}"
        )
