"""TensorBoard logger: scalars over environment steps, videos, charts (Custom Scalars) and a table of runs (HParams)."""

import io
import itertools
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import custom_scalars

from pgx.core.agent import Metrics
from pgx.core.streams import utf8
from pgx.runs.loggers import VideoClip
from pgx.runs.loggers.jsonl import AppendOnlyFile
from pgx.runs.metrics import VIDEO, tag

# Category: title of a chart: keys of pgx/runs/metrics.py
CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "return": {
        "return": ("episode_return",),
        "return, last 20 episodes": ("episode_return_recent",),
        "return, evaluated": ("eval_episode_return",),
        "episode length": ("episode_length",),
    },
    "trust region": {
        "KL(old || new)": ("kl",),
        "largest KL": ("kl_max",),
        "clip fraction": ("clip_fraction",),
        "effective sample size": ("ess",),
        "entropy": ("entropy",),
        "gain, predicted and actual": ("predicted_gain", "surrogate_gain"),
    },
    "line search": {
        "fractions tried": ("line_search_steps",),
        "fraction accepted": ("line_search_fraction",),
        "conjugate gradient, steps": ("cg_steps",),
        "conjugate gradient, residual": ("cg_residual",),
    },
    "critic": {
        "explained variance, before": ("explained_variance",),
        "explained variance, after": ("explained_variance_after",),
        "loss": ("critic_loss",),
    },
    "time": {
        "environment steps a second": ("steps_per_second",),
        "share of environments": ("environment_fraction",),
        "share of the policy": ("policy_fraction",),
        "share of updates": ("update_fraction",),
    },
}


def custom_scalars_layout() -> Summary:
    """Return the record that defines the Custom Scalars tab; TensorBoard merges those of several runs."""
    charts = {
        category: {title: ["Multiline", [_only(key) for key in keys]] for title, keys in titles.items()}
        for category, titles in CHARTS.items()
    }
    summary: Summary = custom_scalars(charts)  # type: ignore[no-untyped-call]
    return summary


def _only(key: str) -> str:
    """Return a pattern for exactly one tag: TensorBoard matches prefixes."""
    return f"{re.escape(tag(key))}$"


ConfigValue = bool | float | str
ColumnType = Literal["number", "text"]

# The tab shows five columns of each kind by default, first those that are marked as different.
MAIN_COLUMNS = ("algo.name", "env.id", "optimizer.learning_rate", "seed", "trainer.total_steps")
RESULT_KEYS = ("final_return", "best_return", "steps", "seconds")  # of summary.json
_TYPES = {"number": api_pb2.DATA_TYPE_FLOAT64, "text": api_pb2.DATA_TYPE_STRING}


def result_tag(key: str) -> str:
    """Return the tag of a value of the summary."""
    return f"result/{key}"


def hparams_columns(config: Mapping[str, ConfigValue | None], others: Mapping[str, ColumnType]) -> Summary:
    """Declare the columns of the table.

    TensorBoard reads this record from one run and uses it for all, so it lists keys that only other runs have.
    The recent return replaces the final one in killed runs.

    Args:
        config: values of the run by dotted key; None for null.
        others: types of the keys that other runs may have.
    """
    own = {key: _column(value) for key, value in config.items() if value is not None}
    kinds = {**others, **own}
    hparams = [
        api_pb2.HParamInfo(name=key, type=_TYPES[kinds[key]], differs=key in MAIN_COLUMNS)
        for key in sorted(kinds)
    ]
    tags = [tag("episode_return_recent"), *map(result_tag, RESULT_KEYS)]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=shown)) for shown in tags]
    experiment = api_pb2.Experiment(hparam_infos=hparams, metric_infos=metrics)
    return _record(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))


def hparams_start(config: Mapping[str, ConfigValue | None]) -> Summary:
    """Return the record that adds the run to the table; the cell of a null value is empty."""
    info = SessionStartInfo()
    for key, value in config.items():
        match value:
            case None:
                continue
            case bool():
                info.hparams[key].bool_value = value
            case int() | float():
                info.hparams[key].number_value = value
            case str():
                info.hparams[key].string_value = utf8(value)
    return _record(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def hparams_end(failed: bool) -> Summary:
    """Return the record of the end of a run; an interrupted run writes none, since TensorBoard keeps the first."""
    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    return _record(
        metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=SessionEndInfo(status=status))
    )


def _column(value: ConfigValue) -> ColumnType:
    return "number" if isinstance(value, int | float) else "text"


def _record(name: str, content: HParamsPluginData) -> Summary:
    content.version = metadata.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=name, metadata=SummaryMetadata(plugin_data=plugin))])


_FORMAT = "brain.Event:2"  # version in the first event of each file
_numbers = itertools.count()


class TensorBoard:
    """Logger that writes event files to a run's folder.

    Events are written immediately. The thread of torch's SummaryWriter buffers them for minutes: a killed run would
    lack rows before its checkpoint, and a full disk would lose them.

    Args:
        run_dir: folder of the run.
        config: values of the run by dotted key, for the HParams tab.
        others: types of the keys that other runs may have, for its columns.
        keep_until: later events of a previous process of the run are hidden; None: a new run.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Mapping[str, ConfigValue | None],
        others: Mapping[str, ColumnType],
        keep_until: int | None,
    ) -> None:
        self._file = AppendOnlyFile(run_dir / _file_name())
        self._append(Event(file_version=_FORMAT))
        if keep_until is None:
            self._append(_session(0))
        else:
            # TensorBoard drops what it has read of this step and later, unless this is the first start that it reads:
            # the second record is for runs whose first process did not write one.
            for _ in range(2):
                self._append(_session(keep_until + 1))
        for summary in (custom_scalars_layout(), hparams_columns(config, others), hparams_start(config)):
            self._append(Event(summary=summary))

    def write(self, steps: int, metrics: Metrics) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self._append(Event(step=steps, summary=Summary(value=values)))

    def write_video(self, steps: int, clip: VideoClip) -> None:
        # A browser plays an animated GIF wherever it shows an image.
        image = Summary.Image(
            width=clip.width, height=clip.height, colorspace=3, encoded_image_string=clip.gif
        )
        self._append(Event(step=steps, summary=Summary(value=[Summary.Value(tag=VIDEO, image=image)])))

    def flush(self) -> None:
        self._file.flush()

    def finish(self, summary: dict[str, Any]) -> None:
        found = {key: summary[key] for key in RESULT_KEYS if summary.get(key) is not None}
        self.write(summary["steps"], {result_tag(key): float(value) for key, value in found.items()})
        if summary["status"] != "interrupted":
            self._append(Event(summary=hparams_end(failed=summary["status"] == "failed")))

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self._file.append(record.getvalue())

    def close(self) -> None:
        self._file.close()


def _session(step: int) -> Event:
    return Event(step=step, session_log=SessionLog(status=SessionLog.START))


def _file_name() -> str:
    """Return a name that TensorBoard finds and that sorts after those of previous processes: its reading order."""
    return f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
