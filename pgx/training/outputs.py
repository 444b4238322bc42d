"""From a checked config to what writes a run's folder."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pgx.algos import rule, rules
from pgx.config.choices import NAMED, keys_of
from pgx.config.sections import Logger, TrainerSection
from pgx.core.schema import fits, signature
from pgx.runs.checkpoints import Checkpoints
from pgx.runs.loggers import Sink
from pgx.runs.loggers.console import make_console
from pgx.runs.loggers.hparams import Column, Value
from pgx.runs.loggers.jsonl import METRICS, JsonLines
from pgx.runs.loggers.patient import Patient
from pgx.runs.loggers.tensorboard import TensorBoard
from pgx.runs.loggers.weights_and_biases import WeightsAndBiases
from pgx.runs.writer import Records, complain


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
    sinks: list[Sink] = []
    if logger.wandb is not None:  # first: where it refuses to start, nothing else has been written
        sinks.append(WeightsAndBiases(logger.wandb, run_dir, _flat(values), complain))
    sinks.append(Patient(JsonLines(run_dir / METRICS, steps, rows), METRICS, complain))
    if logger.tensorboard:
        events = TensorBoard(run_dir, _flat(values), _keys(), keep_until=steps)
        sinks.append(Patient(events, "TensorBoard's events", complain))
    console = make_console(logger.console, logger.console_interval, steps or 0, total_steps)
    return [*sinks, console] if console else sinks


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Value | None]:
    """Return nested values by dotted key; a list as text."""
    flat: dict[str, Value | None] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, bool | int | float | None) else str(value)
    return flat


def _keys() -> dict[str, Column]:
    """Return the keys of every rule and every named choice, with what their values are."""
    hints = {f"algo.{key}": hint for name in rules() for key, hint in signature(rule(name)).items()}
    for section, (registry, _) in NAMED.items():
        hints |= {
            f"{section}.{key}": hint for name in registry for key, hint in keys_of(section, name).items()
        }
    return {key: "number" if fits(1, hint) or fits(0.5, hint) else "text" for key, hint in hints.items()}
