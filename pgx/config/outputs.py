"""From a checked config to what writes a run's folder."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pgx.checkpoint import Checkpoints
from pgx.config.sections import Logger, TrainerSection
from pgx.loggers import Sink
from pgx.loggers.console import make_console
from pgx.loggers.jsonl import METRICS, JsonLines
from pgx.loggers.patient import Patient
from pgx.loggers.tensorboard import TensorBoard
from pgx.records import Records, complain


def make_records(
    values: Mapping[str, Any], logger: Logger, training: TrainerSection, run_dir: Path, config: str
) -> Records:
    checkpoints = Checkpoints(run_dir, training.keep_checkpoints)
    open_sinks = partial(_open_sinks, logger, run_dir, values, training.total_steps)
    return Records(run_dir, config, checkpoints, open_sinks, training.write_patience, complain)


def _open_sinks(
    logger: Logger, run_dir: Path, values: Mapping[str, Any], total_steps: int, steps: int | None, rows: int
) -> Sequence[Sink]:
    """Open the loggers of a run after `steps` environment steps (None: a new run) and `rows` rows of metrics."""
    sinks: list[Sink] = [Patient(JsonLines(run_dir / METRICS, steps, rows), METRICS, complain)]
    if logger.tensorboard:
        events = TensorBoard(run_dir, _flat(values), keep_until=steps)
        sinks.append(Patient(events, "TensorBoard's events", complain))
    console = make_console(logger.console, logger.console_interval, steps or 0, total_steps)
    return [*sinks, console] if console else sinks


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | str | float]:
    """Nested values by dotted key; what is neither number nor truth value as text."""
    flat: dict[str, bool | str | float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, bool | int | float) else str(value)
    return flat
