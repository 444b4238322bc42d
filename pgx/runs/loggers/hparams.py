"""TensorBoard's HParams tab: a row for each run, from its first moment, with the same columns in every run."""

from collections.abc import Mapping
from typing import Literal

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from pgx.core.streams import utf8
from pgx.runs.metrics import tag

Value = bool | float | str
Column = Literal["number", "text"]

# The tab shows five columns of each kind unless its user picks others: first those that are marked as different.
MAIN = ("algo.name", "env.id", "optimizer.learning_rate", "seed", "trainer.total_steps")
RESULTS = ("final_return", "best_return", "steps", "seconds")  # of summary.json
_TYPES = {"number": api_pb2.DATA_TYPE_FLOAT64, "text": api_pb2.DATA_TYPE_STRING}


def result_tag(key: str) -> str:
    """Return the tag of a value of the summary."""
    return f"result/{key}"


def columns(config: Mapping[str, Value | None], others: Mapping[str, Column]) -> Summary:
    """Declare the columns of the table.

    TensorBoard reads this record from one run and uses it for all, so it lists keys that only other runs have.
    The recent return stands for the final one in runs that were killed.

    Args:
        config: the run's values by dotted key; None where a value is null.
        others: keys that other runs may have.
    """
    own = {key: _column(value) for key, value in config.items() if value is not None}
    kinds = {**others, **own}
    hparams = [
        api_pb2.HParamInfo(name=key, type=_TYPES[kinds[key]], differs=key in MAIN) for key in sorted(kinds)
    ]
    tags = [tag("episode_return_recent"), *map(result_tag, RESULTS)]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=shown)) for shown in tags]
    experiment = api_pb2.Experiment(hparam_infos=hparams, metric_infos=metrics)
    return _record(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))


def start(config: Mapping[str, Value | None]) -> Summary:
    """Give the run its row. A value that is null has an empty cell."""
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


def end(failed: bool) -> Summary:
    """Say that the run ended. TensorBoard keeps the first such record; a run that may still resume writes none."""
    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    return _record(
        metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=SessionEndInfo(status=status))
    )


def _column(value: Value) -> Column:
    return "number" if isinstance(value, int | float) else "text"


def _record(name: str, content: HParamsPluginData) -> Summary:
    content.version = metadata.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=name, metadata=SummaryMetadata(plugin_data=plugin))])
