"""MLflow logger: sends the rows, videos and summary of a run with the package mlflow."""

import importlib
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pgx.core.agent import Metrics
from pgx.core.errors import UserError
from pgx.runs.loggers import VideoClip
from pgx.runs.loggers.services import ServiceCalls, stored_id
from pgx.runs.loggers.tensorboard import RESULT_KEYS, ConfigValue, result_tag

_ID_FILE = "mlflow_id"  # in the run's folder: id of the run, which a resumed run continues
_SEND_SECONDS = 1.0  # between two sendings of rows: each takes tens of milliseconds
_MAX_METRICS, _MAX_PARAMS, _MAX_VALUE = 1000, 100, 6000  # of one sending, and characters of a parameter
_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}  # others: KILLED


class MLflow:
    """Logger that sends a run to an MLflow experiment, at the address in MLFLOW_TRACKING_URI.

    Rows are sent at most once a second and before each checkpoint. A resumed run continues the same run there. MLflow
    keeps what it has, so the rows between the last checkpoint and an interruption are there twice, with the same values
    at the same steps.

    Args:
        experiment: its name; it is created if it does not exist.
        run_dir: folder of the run.
        config: values of the run by dotted key.
        warn: called with the first error of MLflow; the run then continues without it.

    Raises:
        UserError: MLflow cannot start, for example because its server does not answer.
    """

    def __init__(
        self,
        experiment: str,
        run_dir: Path,
        config: Mapping[str, ConfigValue | None],
        warn: Callable[[str], None],
    ) -> None:
        for library in ("mlflow", "alembic"):  # they report the creation of a database
            logging.getLogger(library).setLevel(logging.WARNING)
        self._entities = importlib.import_module("mlflow.entities")
        self._calls = ServiceCalls("MLflow", warn)
        self._waiting: list[Any] = []
        self._sent_at = time.monotonic()
        try:
            client = importlib.import_module("mlflow.tracking").MlflowClient()
            self._client: Any = client

            def create() -> str:
                found = client.get_experiment_by_name(experiment)
                where = found.experiment_id if found else client.create_experiment(experiment)
                return str(client.create_run(where, run_name=run_dir.name).info.run_id)

            self._run_id, continues = stored_id(run_dir / _ID_FILE, create)
            if continues:
                client.update_run(self._run_id, status="RUNNING")
            else:
                self._send_params(config)
        except Exception as error:  # the client may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"logger.sinks: mlflow cannot start ({reason}); set MLFLOW_TRACKING_URI, or remove mlflow from "
                "logger.sinks"
            ) from error

    def _send_params(self, config: Mapping[str, ConfigValue | None]) -> None:
        params = [self._entities.Param(key, str(value)[:_MAX_VALUE]) for key, value in config.items()]
        for start in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(self._run_id, params=params[start : start + _MAX_PARAMS])

    def write(self, steps: int, metrics: Metrics) -> None:
        now = int(time.time() * 1000)  # milliseconds
        self._waiting += [self._entities.Metric(tag, value, now, steps) for tag, value in metrics.items()]
        if time.monotonic() - self._sent_at >= _SEND_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the rows that wait."""
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _MAX_METRICS):
            batch = waiting[start : start + _MAX_METRICS]
            self._calls.attempt(partial(self._client.log_batch, self._run_id, metrics=batch))
        self._sent_at = time.monotonic()

    def write_video(self, steps: int, clip: VideoClip) -> None:
        self._calls.attempt(lambda: self._send_video(steps, clip))

    def _send_video(self, steps: int, clip: VideoClip) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"episode_{steps:012d}.gif"
            path.write_bytes(clip.gif)
            self._client.log_artifact(self._run_id, str(path), "videos")

    def finish(self, summary: dict[str, Any]) -> None:
        found = {key: float(summary[key]) for key in RESULT_KEYS if summary.get(key) is not None}
        self.write(summary["steps"], {result_tag(key): value for key, value in found.items()})
        self.flush()
        status = _STATUS.get(summary["status"], "KILLED")
        self._calls.attempt(lambda: self._client.set_terminated(self._run_id, status))

    def close(self) -> None:
        """Send the rows that wait."""
        self.flush()
