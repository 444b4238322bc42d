"""All runs below folders."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pgx.analysis.foreign_runs import EVENT_FILES, read_foreign
from pgx.analysis.reading import LABEL_KEYS, RecordedRun, UnreadableError, no_rows_message, read_pgx_run
from pgx.config.stored import CONFIG
from pgx.core.errors import UserError
from pgx.core.schema import nearest
from pgx.runs.loggers.jsonl import METRICS
from pgx.runs.writer import SUMMARY

_SAID = re.compile(r"(.+?):(\w+=.*)")


@dataclass(frozen=True)
class RunFolder:
    """A folder to look below, and what the user says of the runs there."""

    folder: Path
    said: Mapping[str, str] = field(default_factory=dict)  # of KEYS


def parse_run_folder(text: str) -> RunFolder:
    """`DIR` or `DIR:env=Walker2d-v4,algo=mine,seed=3`.

    Raises:
        UserError: no such folder, or a key that is none.
    """
    found = None if Path(text).exists() else _SAID.fullmatch(text)
    folder = Path(found[1] if found else text)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with runs below it")
    said: dict[str, str] = {}
    for pair in found[2].split(",") if found else []:
        key, _, value = pair.partition("=")
        if key not in LABEL_KEYS or not value:
            raise UserError(
                f"{text}: '{pair}': expected {', '.join(LABEL_KEYS)} = a value{nearest(key, LABEL_KEYS)}"
            )
        said[key] = value
    return RunFolder(folder, said)


def is_pgx_run(folder: Path) -> bool:
    """A run of pgx has this folder, or had begun to."""
    return any((folder / name).is_file() for name in (METRICS, CONFIG, SUMMARY))


def pgx_run_folders(folder: Path) -> Iterator[Path]:
    """The folders of pgx's runs at and below a folder."""
    return (path for path, own in _folders(folder) if own)


def _folders(top: Path) -> Iterator[tuple[Path, bool]]:
    """Each folder with a run, and whether it is pgx's; what is inside of a run of pgx is the run's own affair."""
    for where, inner, names in os.walk(top):
        path = Path(where)
        if is_pgx_run(path):
            inner.clear()
            yield path, True
            continue
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if any(name.startswith(EVENT_FILES.rstrip("*")) for name in names):
            yield path, False


def read_runs(places: Sequence[RunFolder]) -> tuple[list[RecordedRun], list[str]]:
    """Every run below the places, once each, and a line about each that cannot be read."""
    runs: dict[Path, RecordedRun] = {}
    problems = []
    for place in places:
        for folder, own in _folders(place.folder):
            if folder.resolve() in runs:
                continue
            try:
                runs[folder.resolve()] = _read(folder, own, place.said)
            except UnreadableError as error:
                problems.append(str(error))
            except (OSError, ValueError, KeyError, TypeError) as error:
                problems.append(f"{folder}: cannot be read: {type(error).__name__}: {error}")
    return list(runs.values()), problems


def _read(folder: Path, own: bool, said: Mapping[str, str]) -> RecordedRun:
    if own and (folder / METRICS).is_file():
        return _as_said(read_pgx_run(folder), said)
    if any(folder.glob(EVENT_FILES)):
        return read_foreign(folder, said)
    raise UnreadableError(no_rows_message(folder))


def _as_said(run: RecordedRun, said: Mapping[str, str]) -> RecordedRun:
    """A run of pgx under the names that the user gives it."""
    return replace(
        run,
        env=said.get("env", run.env),
        algo=said.get("algo", run.algo),
        seed=said.get("seed", run.seed),
    )
