"""Runs as plain data, read from their folders.

A run of another library is identified by the names of its folders.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pgx.analysis.statistics import Array
from pgx.config.run_config import flatten_config
from pgx.config.stored import CONFIG, MAX_CONFIG_BYTES, present_key
from pgx.runs.lock import holder
from pgx.runs.loggers.jsonl import METRICS, read_rows
from pgx.runs.writer import read_summary


class UnreadableError(Exception):
    """Folder without a readable run; the message says why. Other runs can still be read."""


@dataclass(frozen=True)
class Series:
    """One metric of a run.

    Args:
        steps: environment steps [n], ascending; rows at the same step in the order in which they were written.
        values: in the metric's unit [n].
    """

    steps: Array
    values: Array

    def interpolate(self, at: Array) -> Array:
        """Return the values at given steps, linear between two rows.

        If several rows have the same step, the last one counts.

        Args:
            at: environment steps [G].

        Returns:
            Values [G]; the last value after the last row, NaN before the first.
        """
        last = np.append(self.steps[1:] != self.steps[:-1], True)
        found = np.interp(at, self.steps[last], self.values[last], left=np.nan)
        return np.asarray(found, dtype=np.float64)


@dataclass(frozen=True)
class RecordedRun:
    """Run of pgx or of another library.

    Args:
        folder: of the run.
        source: "pgx", or the library that wrote it.
        env: id of the environment.
        algo: label of the algorithm.
        seed: None: unknown.
        config: values by dotted key; of other libraries, what they wrote.
        state: as in pgx.sweeps.progress; "unknown" for other libraries.
        error: of a failed run.
        last_step: environment steps at its last row.
        series: metrics by tag.
    """

    folder: Path
    source: str
    env: str
    algo: str
    seed: str | None
    config: Mapping[str, Any]
    state: str
    error: str | None
    last_step: int
    series: Mapping[str, Series]

    @property
    def name(self) -> str:
        """Return the folder as text."""
        return str(self.folder)


def sorted_series(steps: list[float], values: list[float]) -> Series:
    """Return a series from rows in the order in which they were written."""
    at = np.asarray(steps, dtype=np.float64)
    order = np.argsort(at, kind="stable")
    return Series(at[order], np.asarray(values, dtype=np.float64)[order])


_UNKNOWN = "unknown"
LABEL_KEYS = ("env", "algo", "seed")

_ENV = re.compile(r"[A-Za-z][\w.-]*-v\d+")
_SEED = re.compile(r"(?:seed|s)[_=-]?(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,5}")  # longer numbers are dates
_NUMBERED = re.compile(r"([A-Za-z].*)_(\d{1,5})")


@dataclass(frozen=True)
class RunIdentity:
    """Environment, algorithm and seed of a run."""

    env: str
    algo: str
    seed: str | None


def identify(folder: Path, short: str, labels: Mapping[str, str], recorded: Mapping[str, str]) -> RunIdentity:
    """Return the identity of a run of another library.

    Labels given by the user come first, then what the run recorded, then its folder's name by the first rule that fits:
    `<env>__<algo>__<seed>__<time>` (CleanRL), `<env>/.../<algo>_<n>` (Stable-Baselines3, where n numbers the runs), and
    `<env>/<algo>/<seed>/...` (Tianshou; seed3, s3 or 3). An environment's id is letters, then -v and a number.
    Algorithms get the library's name as a prefix, so that they differ from pgx's.

    Args:
        folder: of the run.
        short: name of the library.
        labels: given by the user, by LABEL_KEYS.
        recorded: in the run, by LABEL_KEYS.
    """
    from_names = _from_names(folder.resolve().parts)
    env = labels.get("env") or recorded.get("env") or from_names.get("env") or _UNKNOWN
    algo = labels.get("algo") or f"{short}:{recorded.get('algo') or from_names.get('algo') or _UNKNOWN}"
    seed = labels.get("seed") or recorded.get("seed") or from_names.get("seed")
    return RunIdentity(env, algo, seed)


def _from_names(parts: tuple[str, ...]) -> dict[str, str]:
    fields = parts[-1].split("__")
    if len(fields) >= 4:
        return {"env": fields[0], "algo": "__".join(fields[1:-2]), "seed": fields[-2]}
    found: dict[str, str] = {}
    where = max((i for i, part in enumerate(parts) if _ENV.fullmatch(part)), default=None)
    if where is not None:
        found["env"] = parts[where]
    if (numbered := _NUMBERED.fullmatch(parts[-1])) and not _SEED.fullmatch(parts[-1]):
        return found | {"algo": numbered[1], "seed": numbered[2]}
    below = parts[where + 1 :] if where is not None else parts[-2:]
    for part in below:
        if seed := _SEED.fullmatch(part) or _NUMBER.fullmatch(part):
            found.setdefault("seed", seed[1] if seed.re is _SEED else part)
        elif not part[0].isdigit():
            found.setdefault("algo", part)
    return found


_SOURCE = "pgx"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_pgx_run(folder: Path) -> RecordedRun:
    """Read a run of pgx.

    Raises:
        UnreadableError: the run has no row of metrics, or its config is invalid.
    """
    rows = read_rows(folder / METRICS)
    if not _columns(rows):
        raise UnreadableError(no_rows_message(folder))
    return recorded_run(
        folder, rows, _config(folder / CONFIG), read_summary(folder), running=holder(folder) is not None
    )


def recorded_run(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    summary: Mapping[str, Any],
    running: bool,
) -> RecordedRun:
    """Return a run of pgx.

    Args:
        folder: of the run.
        rows: `step` and metrics by tag, at least one.
        values: of its config, nested.
        summary: empty while the run has not ended.
        running: a process trains it.
    """
    columns = _columns(rows)
    config = {present_key(key): value for key, value in flatten_config(values).items()}
    state = "running" if running else summary.get("status", "interrupted")
    return RecordedRun(
        folder=folder,
        source=_SOURCE,
        env=str(config.get("env.id", "unknown")).split(":")[-1],
        algo=str(config.get("label", config.get("algo.name", "unknown"))),
        seed=str(config["seed"]) if "seed" in config else None,
        config=config,
        state=str(state),
        error=summary.get("error") if state == "failed" else None,
        last_step=int(max(column.steps[-1] for column in columns.values())),
        series=columns,
    )


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        step = row["step"]
        if not _number(step):
            continue
        for tag, value in row.items():
            if tag != "step" and _number(value):
                steps, values = columns.setdefault(tag, ([], []))
                steps.append(step)
                values.append(value)
    return {tag: sorted_series(steps, values) for tag, (steps, values) in columns.items()}


def no_rows_message(folder: Path) -> str:
    """Return a line about a run without a row of metrics, with the reason if it failed."""
    error = read_summary(folder).get("error")
    return f"{folder}: no row of metrics" + (f"; it failed: {' '.join(str(error).split())}" if error else "")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _config(path: Path) -> dict[str, Any]:
    """Read a config as plain data. Configs of other versions of pgx are valid here."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UnreadableError(f"{path}: has more than {MAX_CONFIG_BYTES:,} bytes, which no config has")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=_Loader)):
            raise UnreadableError(f"{path}: contains YAML aliases; expected plain values")
        values = yaml.load(text, Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UnreadableError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UnreadableError(f"{path}: is not a config; expected keys and values")
    return values
