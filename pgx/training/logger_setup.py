"""Loggers of a run, as its config names them (`logger.sinks`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pgx.algos import rule, rules
from pgx.config.named_objects import NamedObject, argument_problems, construct, import_object, read_entries
from pgx.config.run_config import NAMED_SECTIONS, LoggerConfig, RunConfig, keys_of_choice
from pgx.core.errors import RunError, UserCodeError, UserError
from pgx.core.imports import require
from pgx.core.schema import matches_type, nearest, parameter_types
from pgx.core.tracebacks import describe_exception
from pgx.runs.loggers import Logger
from pgx.runs.loggers.console import make_console
from pgx.runs.loggers.jsonl import METRICS, JsonLines
from pgx.runs.loggers.mlflow import MLflow
from pgx.runs.loggers.retrying import RetryingLogger
from pgx.runs.loggers.services import flat_values
from pgx.runs.loggers.tensorboard import ColumnType, ConfigValue, TensorBoard
from pgx.runs.loggers.weights_and_biases import WeightsAndBiases
from pgx.runs.writer import print_warning

_KEY = "logger.sinks"
SERVICES = ("wandb", "mlflow")  # sinks with a project, each needs the package of its name
SINKS = ("tensorboard", *SERVICES)
_METHODS = ("write", "write_video", "flush", "finish", "close")


def import_sinks(entries: Sequence[Any]) -> list[tuple[NamedObject, Any]]:
    """Return the entries of `logger.sinks`, with the classes of the user's; open nothing.

    Raises:
        UserError: naming every problem of every entry.
    """
    seen = set[str]()

    def read(named: NamedObject) -> Any:
        if named.name in seen:
            raise UserError(f"{_KEY}: {named.name}: listed twice")
        seen.add(named.name)
        return _import(named)

    return read_entries(_KEY, entries, read)


def _import(named: NamedObject) -> Any:
    """Return the class of a user's logger; None for those of pgx.

    Raises:
        UserError: there is no such logger, its package is missing, or it lacks a method or an argument.
    """
    if not named.is_external:
        if named.name not in SINKS:
            raise UserError(
                f"{_KEY}: {named.name}: no such sink{nearest(named.name, SINKS)}; choose from {', '.join(SINKS)}, "
                "or module:Class of your own"
            )
        known = ["project"] if named.name in SERVICES else []
        if unknown := [each for each in named.arguments if each not in known]:
            raise UserError(
                f"{_KEY}: {named.name}: has no argument '{unknown[0]}'{nearest(unknown[0], known)}"
            )
        if named.name in SERVICES:
            require(f"{_KEY}=[{named.name}]", named.name)
        return None
    own = import_object(_KEY, named.name)
    if missing := [method for method in _METHODS if not hasattr(own, method)]:
        raise UserError(
            f"{_KEY}: {named.name} is no logger: it has no {', '.join(missing)} (see pgx.runs.loggers.Logger)"
        )
    if problems := argument_problems(_KEY, named, own, given=2):
        raise UserError(*problems)
    return own


def open_loggers(config: RunConfig, run_dir: Path, steps: int | None, rows: int) -> list[Logger]:
    """Open the loggers of a folder after `steps` environment steps (None: a new run) and `rows` rows of metrics."""
    values = flat_values(config.values)
    services, sinks = list[Logger](), list[Logger]()
    for named, own in import_sinks(config.logger.sinks):
        if named.name in SERVICES:  # first: where one refuses to start, nothing else has been written
            services.append(_service(named, config.logger, run_dir, values))
        elif own is None:
            events = TensorBoard(run_dir, values, _columns(), keep_until=steps)
            sinks.append(RetryingLogger(events, "TensorBoard's events", print_warning))
        else:
            sinks.append(_OwnLogger(named.name, construct(_KEY, named, own, run_dir, values)))
    rows_file = RetryingLogger(JsonLines(run_dir / METRICS, steps, rows), METRICS, print_warning)
    return [*services, rows_file, *sinks]


def open_console(logger: LoggerConfig, steps: int | None, total_steps: int) -> list[Logger]:
    """Return the console of a run after `steps` environment steps (None: a new run), or nothing."""
    console = make_console(logger.console, logger.console_interval, steps or 0, total_steps)
    return [] if console is None else [console]


def _service(
    named: NamedObject, logger: LoggerConfig, run_dir: Path, values: Mapping[str, ConfigValue | None]
) -> Logger:
    project = str(named.arguments.get("project", logger.project))
    if named.name == "wandb":
        return WeightsAndBiases(project, run_dir, values, print_warning)
    return MLflow(project, run_dir, values, print_warning)


class _OwnLogger:
    """Logger of the user, whose exceptions name it."""

    def __init__(self, name: str, logger: Logger) -> None:
        self._name = name
        self._logger = logger

    def write(self, steps: int, metrics: Any) -> None:
        self._call("write", steps, metrics)

    def write_video(self, steps: int, clip: Any) -> None:
        self._call("write_video", steps, clip)

    def flush(self) -> None:
        self._call("flush")

    def finish(self, summary: dict[str, Any]) -> None:
        self._call("finish", summary)

    def close(self) -> None:
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        try:
            getattr(self._logger, method)(*arguments)
        except (OSError, UserError, RunError):
            raise  # as the protocol of loggers allows
        except Exception as error:
            raise UserCodeError(
                f"logger {self._name}: {method} raised {describe_exception(error)}"
            ) from error


def _columns() -> dict[str, ColumnType]:
    """Return the type of each key of every rule and every named choice, for TensorBoard's table."""
    hints = {f"algo.{key}": hint for name in rules() for key, hint in parameter_types(rule(name)).items()}
    for section, registry in NAMED_SECTIONS.items():
        hints |= {
            f"{section}.{key}": hint
            for name in registry
            for key, hint in keys_of_choice(section, name).items()
        }
    return {
        key: "number" if matches_type(1, hint) or matches_type(0.5, hint) else "text"
        for key, hint in hints.items()
    }
