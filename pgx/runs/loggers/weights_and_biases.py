"""Weights & Biases logger: sends the rows, videos and summary of a run with the package wandb."""

import importlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from pgx.core.agent import Metrics
from pgx.core.errors import UserError
from pgx.runs.loggers import VideoClip
from pgx.runs.loggers.services import ServiceCalls, random_id, stored_id
from pgx.runs.loggers.tensorboard import RESULT_KEYS, ConfigValue, result_tag
from pgx.runs.metrics import VIDEO

_ID_FILE = "wandb_id"  # in the run's folder: id of the run, which a resumed run continues
_STEP = "step"  # axis of the charts; W&B's own step cannot go back to a checkpoint


class WeightsAndBiases:
    """Logger that sends a run to a project of Weights & Biases.

    With WANDB_MODE=offline it writes to the run's folder, and `wandb sync RUN/wandb/offline-run-*` sends it later. A
    resumed run continues the same run there. W&B keeps what it has, so the rows between the last checkpoint and an
    interruption are there twice, with the same values at the same steps.

    Args:
        project: its name.
        run_dir: folder of the run, in which wandb keeps its files.
        config: values of the run by dotted key.
        warn: called with the first error of W&B; the run then continues without it.

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
        self._calls = ServiceCalls("Weights & Biases", warn)
        self._status = "failed"
        try:
            self._run: Any = self._wandb.init(
                project=project,
                dir=str(run_dir),
                id=stored_id(run_dir / _ID_FILE, random_id)[0],
                resume="allow",
                name=run_dir.name,
                config=dict(config),
                settings=self._wandb.Settings(console="off", silent=True),
            )
            self._run.define_metric("*", step_metric=_STEP)
        except self._wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"logger.sinks: wandb cannot start ({reason}); run wandb login, set WANDB_MODE=offline, "
                "or remove wandb from logger.sinks"
            ) from error

    def write(self, steps: int, metrics: Metrics) -> None:
        self._calls.attempt(lambda: self._run.log({_STEP: steps, **metrics}))

    def write_video(self, steps: int, clip: VideoClip) -> None:
        def send() -> None:
            self._run.log({_STEP: steps, VIDEO: self._wandb.Video(BytesIO(clip.gif), format="gif")})

        self._calls.attempt(send)

    def flush(self) -> None:
        """Do nothing: a process of wandb sends the rows."""

    def finish(self, summary: dict[str, Any]) -> None:
        self._status = summary["status"]
        found = {result_tag(key): summary[key] for key in RESULT_KEYS if summary.get(key) is not None}
        self._calls.attempt(lambda: self._run.summary.update({"status": self._status, **found}))

    def close(self) -> None:
        """Wait until all logged data is sent."""
        self._calls.attempt(lambda: self._run.finish(exit_code=int(self._status == "failed")))
