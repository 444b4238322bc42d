"""A run of pgx, from its folder; one that is under way as far as it is."""

import math
from pathlib import Path
from typing import Any

import yaml

from pgx.analysis.reading.run import Run, Series, UnreadableError, flat, series
from pgx.config.stored import CONFIG, LARGEST
from pgx.runs.lock import holder
from pgx.runs.loggers.jsonl import METRICS, read
from pgx.runs.writer import read_summary

SOURCE = "pgx"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_own(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        UnreadableError: no row of metrics, or a config that is none.
    """
    columns = _columns(folder / METRICS)
    config = flat(_config(folder / CONFIG))
    summary = read_summary(folder)
    state = "running" if holder(folder) is not None else summary.get("status", "interrupted")
    return Run(
        folder=folder,
        source=SOURCE,
        env=str(config.get("env.id", "unknown")).split(":")[-1],
        algo=str(config.get("label", config.get("algo.name", "unknown"))),
        seed=str(config["seed"]) if "seed" in config else None,
        config=config,
        state=str(state),
        error=summary.get("error") if state == "failed" else None,
        last_step=int(max(column.steps[-1] for column in columns.values())),
        series=columns,
    )


def _columns(path: Path) -> dict[str, Series]:
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for row in read(path):
        step = row["step"]
        if not _number(step):
            continue
        for tag, value in row.items():
            if tag != "step" and _number(value):
                steps, values = columns.setdefault(tag, ([], []))
                steps.append(step)
                values.append(value)
    if not columns:
        raise UnreadableError(no_rows(path.parent))
    return {tag: series(steps, values) for tag, (steps, values) in columns.items()}


def no_rows(folder: Path) -> str:
    """Return a line about a run without a row of metrics, with the reason if it failed."""
    error = read_summary(folder).get("error")
    return f"{folder}: no row of metrics" + (f"; it failed: {' '.join(str(error).split())}" if error else "")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _config(path: Path) -> dict[str, Any]:
    """A config as plain data. More lenient than one that a run is made from: other versions of pgx wrote some."""
    try:
        if path.stat().st_size > LARGEST:
            raise UnreadableError(f"{path}: larger than {LARGEST:,} bytes, and no config is")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=_Loader)):
            raise UnreadableError(f"{path}: expected plain values, without YAML aliases")
        values = yaml.load(text, Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UnreadableError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UnreadableError(f"{path}: not a config: expected keys and values")
    return values
