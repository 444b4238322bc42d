"""What a run writes into its folder: rows of metrics, checkpoints, its summary; and what happens when it cannot."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgx.config.stored import command
from pgx.core.agent import Metrics
from pgx.core.errors import RunError, UserError
from pgx.runs.checkpoints import BEST, LAST, Checkpoints, checkpoint_name, write_atomically
from pgx.runs.loggers import Logger, VideoClip
from pgx.runs.loggers.jsonl import METRICS, decode_nonfinite, encode_nonfinite, read_rows

SUMMARY = "summary.json"
RETRY_INTERVAL = 1.0  # seconds between attempts to write what could not be written


@dataclass(frozen=True)
class PendingCheckpoint:
    """A checkpoint that is not on the disk yet, packed at its moment."""

    steps: int
    state: bytes
    best: bytes | None  # to be written with it


class RunWriter:
    """The only writer of a run's folder. What a full disk refuses is kept and tried again; training goes on meanwhile.

    Args:
        run_dir: the folder.
        config: the resolved config as YAML.
        checkpoints: of the folder.
        open_sinks: opens the loggers for a run that has come this many steps (None: a new run) and logged so many rows.
        patience: seconds that the end of a run waits for a disk that refuses.
        warn: told what cannot be written, and when it has been.
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
        """Open the folder of a run that has come so many steps (None: of a new one) and logged so many rows."""
        # A summary is of a run that has ended: one of an earlier life would speak for this one if it is killed.
        (self.run_dir / SUMMARY).unlink(missing_ok=True)
        write_atomically(self.run_dir / "config.yaml", self.config.encode())
        self._loggers = self.open_loggers(steps, rows)
        lost = rows - len(read_rows(self.run_dir / METRICS))
        if lost > 0:
            self.warn(
                f"{METRICS}: {lost:,} of the {rows:,} rows up to the checkpoint are not there or damaged"
            )

    def write_row(self, steps: int, metrics: Metrics) -> None:
        """Log an iteration's metrics, under their tags."""
        for logger in self._loggers:
            logger.write(steps, metrics)

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Show a video where one can be shown."""
        for logger in self._loggers:
            logger.write_video(steps, clip)

    def write_checkpoint(self, pending: PendingCheckpoint) -> None:
        """Write a checkpoint now, or as soon as the disk lets it; one that waits has a last chance before it."""
        self._tried_at = 0.0
        self.retry_checkpoint()
        self._pending, self._tried_at = pending, 0.0
        self.retry_checkpoint()

    def retry_checkpoint(self) -> None:
        """Write what waits, if it is time to try again."""
        if self._pending is None or time.monotonic() - self._tried_at < RETRY_INTERVAL:
            return
        self._tried_at = time.monotonic()
        try:
            self._write_pending()
        except OSError as error:
            if not self._failing:
                self._failing = True
                self.warn(
                    f"checkpoint: cannot be written ({error.strerror}); training goes on, it is tried again"
                )

    def _write_pending(self) -> None:
        """What `last` is, rows are settled up to, and the best is there: a resumed run lacks neither."""
        if self._pending is None:
            return
        for logger in self._loggers:
            logger.flush()
        if self._pending.best is not None:
            self.checkpoints.save(self._pending.best, [BEST])
        self.checkpoints.save(self._pending.state, [checkpoint_name(self._pending.steps), LAST])
        if self._failing:
            self._failing = False
            self.warn("checkpoint: written after all")
        self._pending = None

    def finish(self, summary: dict[str, Any], wait_for_disk: bool) -> None:
        """Write all that is left, and how the run ended.

        Args:
            summary: what summary.json shall hold.
            patient: wait for a disk that refuses; else a warning says what it refused, since something worse is on its
                way to the user.

        Raises:
            RunError: it went on refusing.
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
        """Each in turn, once."""
        try:
            for action in todo:
                action()
        except OSError as error:
            self.warn(_refused(self.run_dir, error))

    def _retry(self, todo: list[Callable[[], None]], give_up: float) -> None:
        """Each in turn, again and again where the disk refuses it."""
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
                        f"{self.run_dir}: cannot be written ({error.strerror}); the run is over and waits for "
                        f"{left:,.0f} s (trainer.disk_retry_seconds), Ctrl-C gives up"
                    )
                time.sleep(min(RETRY_INTERVAL, left))


def _refused(run_dir: Path, error: OSError) -> str:
    return f"{run_dir}: cannot be written ({error.strerror}); what it holds is whole, of an earlier moment of the run"


def _finishing(logger: Logger, summary: dict[str, Any]) -> Callable[[], None]:
    return lambda: logger.finish(summary)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """How a run ended; empty where it has not, or where its summary is damaged."""
    try:
        found = json.loads((run_dir / SUMMARY).read_text())
    except (OSError, ValueError):
        return {}
    return decode_nonfinite(found) if isinstance(found, dict) else {}


def print_warning(line: str) -> None:
    """A warning on the error stream."""
    print(f"pgx: {line}", file=sys.stderr, flush=True)


def refuse_existing_run(run_dir: Path) -> None:
    """A new run must not write over an old one.

    Raises:
        UserError: the folder holds a run.
    """
    if (run_dir / "metrics.jsonl").exists() or (run_dir / "checkpoints").exists():
        raise UserError(
            f"run_dir={run_dir}: holds a run already; choose another folder, or go on with it: "
            f"{command('train', '--resume', run_dir, of=run_dir)}"
        )
