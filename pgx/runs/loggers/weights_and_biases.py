"""Weights & Biases logger: sends the rows, videos and summary of a run with the package wandb."""

import importlib
import secrets
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from pgx.core.agent import Metrics
from pgx.core.errors import UserError
from pgx.runs.checkpoints import write_atomically
from pgx.runs.loggers import VideoClip
from pgx.runs.loggers.tensorboard import RESULT_KEYS, ConfigValue, result_tag
from pgx.runs.metrics import VIDEO

_ID_FILE = (
    "wandb_id"  # file of a run's folder: under which id the run is sent, so that a resumed run goes on there
)
_STEP = "step"  # what the charts are drawn over; W&B's own step cannot go back to a checkpoint


class WeightsAndBiases:
    """Sends a run to a project. What W&B refuses is reported once, after which the run continues without it.

    With WANDB_MODE=offline nothing is sent: `wandb sync RUN/wandb/offline-run-*` does so later.

    Args:
        project: its name.
        run_dir: the run's folder, in which wandb keeps its files.
        config: the run's values by dotted key.
        warn: called with the error of W&B.

    Raises:
        UserError: wandb cannot start, for example because nobody has logged in.
    """

    def __init__(
        self,
        project: str,
        run_dir: Path,
        config: Mapping[str, ConfigValue | None],
        warn: Callable[[str], None],
    ) -> None:
        self._wandb = importlib.import_module("wandb")
        self._warn = warn
        self._status = "failed"
        try:
            self._run: Any = self._wandb.init(
                project=project,
                dir=str(run_dir),
                id=self._identity(run_dir / _ID_FILE),
                resume="allow",
                name=run_dir.name,
                config=dict(config),
                settings=self._wandb.Settings(console="off"),
            )
            self._run.define_metric("*", step_metric=_STEP)
        except self._wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"logger.wandb={project}: wandb cannot start ({reason}); run wandb login, set WANDB_MODE=offline, "
                "or remove logger.wandb"
            ) from error

    @staticmethod
    def _identity(path: Path) -> str:
        if not path.is_file():
            write_atomically(path, secrets.token_hex(4).encode())
        return path.read_text(encoding="utf-8")

    def _try(self, action: Callable[[], object]) -> None:
        """Call an action of wandb; after its first failure, warn and log nothing more to W&B."""
        if self._run is None:
            return
        try:
            action()
        except Exception as error:
            self._run = None
            self._warn(f"Weights & Biases: {type(error).__name__}: {error}; the run continues without it")

    def write(self, steps: int, metrics: Metrics) -> None:
        self._try(lambda: self._run.log({_STEP: steps, **metrics}))

    def write_video(self, steps: int, clip: VideoClip) -> None:
        self._try(
            lambda: self._run.log(
                {_STEP: steps, VIDEO: self._wandb.VideoClip(BytesIO(clip.gif), format="gif")}
            )
        )

    def flush(self) -> None:
        """Do nothing: a process of wandb sends the rows."""

    def finish(self, summary: dict[str, Any]) -> None:
        self._status = summary["status"]
        found = {result_tag(key): summary[key] for key in RESULT_KEYS if summary.get(key) is not None}
        self._try(lambda: self._run.summary.update({"status": self._status, **found}))

    def close(self) -> None:
        """Wait until all logged data is sent."""
        self._try(lambda: self._run.finish(exit_code=int(self._status == "failed")))
