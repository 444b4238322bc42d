"""Runs as their folders tell of them, whoever wrote these.

A run: what it is, how it ended, and its metrics over environment steps.

Which environment, algorithm and seed a run of another library is of, from the names of folders.

A run of pgx, from its folder; one that is under way as far as it is.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pgx.analysis.statistics import Array
from pgx.config.stored import CONFIG, LARGEST, present_key
from pgx.runs.lock import holder
from pgx.runs.loggers.jsonl import METRICS, read_rows
from pgx.runs.writer import read_summary


class UnreadableError(Exception):
    """A folder that tells of no run; the message says why. Others can be read all the same."""


@dataclass(frozen=True)
class Series:
    """One metric of a run."""

    steps: Array  # [n], ascending; where several rows share a step, in the order in which they were written
    values: Array  # [n]

    def interpolate(self, at: Array) -> Array:
        """Return the values at given steps, linear between two rows.

        Of several rows at one step the last one counts.

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
    """One run, whoever wrote it."""

    folder: Path
    source: str  # pgx, or the library that wrote it
    env: str
    algo: str
    seed: str | None  # None: the folder does not tell
    config: Mapping[str, Any]  # by dotted key; of a foreign run, what it wrote of it
    state: str  # of pgx.sweeps.progress; "unknown" of a foreign run
    error: str | None
    last_step: int  # environment steps of its last row
    series: Mapping[str, Series]  # by tag

    @property
    def name(self) -> str:
        return str(self.folder)


def sorted_series(steps: list[float], values: list[float]) -> Series:
    """A series from rows in the order of writing."""
    at = np.asarray(steps, dtype=np.float64)
    order = np.argsort(at, kind="stable")
    return Series(at[order], np.asarray(values, dtype=np.float64)[order])


def flatten_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by dotted key."""
    found: dict[str, Any] = {}
    for key, inner in values.items():
        if isinstance(inner, Mapping) and inner:
            found |= {f"{key}.{name}": leaf for name, leaf in flatten_config(inner).items()}
        else:
            found[str(key)] = inner
    return found


_UNKNOWN = "unknown"
LABEL_KEYS = ("env", "algo", "seed")

_ENV = re.compile(r"[A-Za-z][\w.-]*-v\d+")
_SEED = re.compile(r"(?:seed|s)[_=-]?(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,5}")  # longer ones are dates
_NUMBERED = re.compile(r"([A-Za-z].*)_(\d{1,5})")


@dataclass(frozen=True)
class RunIdentity:
    """What runs are grouped by."""

    env: str
    algo: str
    seed: str | None


def identify(folder: Path, short: str, said: Mapping[str, str], told: Mapping[str, str]) -> RunIdentity:
    """A foreign run's identity.

    What the user said comes first, then what the run wrote of itself, then its folder's name by the first rule that
    fits: `<env>__<algo>__<seed>__<time>` (CleanRL), `<env>/.../<algo>_<n>` (Stable-Baselines3, whose n numbers the
    runs), and `<env>/<algo>/<seed>/...` (Tianshou; seed3, s3 or 3). An environment is what looks like an id: letters,
    then -v and a number. Algorithms bear the library's name before their own, so that none is taken for pgx's.

    Args:
        folder: the run's.
        short: the library's name.
        said: by the user, of KEYS.
        told: by the run, of KEYS.
    """
    named = _from_names(folder.resolve().parts)
    env = said.get("env") or told.get("env") or named.get("env") or _UNKNOWN
    algo = said.get("algo") or f"{short}:{told.get('algo') or named.get('algo') or _UNKNOWN}"
    seed = said.get("seed") or told.get("seed") or named.get("seed")
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
    """The run in a folder.

    Raises:
        UnreadableError: no row of metrics, or a config that is none.
    """
    columns = _columns(folder / METRICS)
    config = {present_key(key): value for key, value in flatten_config(_config(folder / CONFIG)).items()}
    summary = read_summary(folder)
    state = "running" if holder(folder) is not None else summary.get("status", "interrupted")
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


def _columns(path: Path) -> dict[str, Series]:
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for row in read_rows(path):
        step = row["step"]
        if not _number(step):
            continue
        for tag, value in row.items():
            if tag != "step" and _number(value):
                steps, values = columns.setdefault(tag, ([], []))
                steps.append(step)
                values.append(value)
    if not columns:
        raise UnreadableError(no_rows_message(path.parent))
    return {tag: sorted_series(steps, values) for tag, (steps, values) in columns.items()}


def no_rows_message(folder: Path) -> str:
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
