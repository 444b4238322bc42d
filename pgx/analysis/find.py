"""Search for runs below folders."""

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

_LABELED = re.compile(r"(.+?):(\w+=.*)")


@dataclass(frozen=True)
class RunFolder:
    """Folder to search for runs.

    Args:
        folder: to search.
        labels: of all runs in it, given by the user, by LABEL_KEYS.
    """

    folder: Path
    labels: Mapping[str, str] = field(default_factory=dict)


def parse_run_folder(text: str) -> RunFolder:
    """Parse `DIR` or `DIR:env=Walker2d-v4,algo=mine,seed=3`.

    Raises:
        UserError: the folder does not exist, or a key is unknown.
    """
    found = None if Path(text).exists() else _LABELED.fullmatch(text)
    folder = Path(found[1] if found else text)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a folder that contains runs")
    labels: dict[str, str] = {}
    for pair in found[2].split(",") if found else []:
        key, _, value = pair.partition("=")
        if key not in LABEL_KEYS or not value:
            raise UserError(
                f"{text}: '{pair}': must be KEY=VALUE; keys: {', '.join(LABEL_KEYS)}{nearest(key, LABEL_KEYS)}"
            )
        labels[key] = value
    return RunFolder(folder, labels)


def is_pgx_run(folder: Path) -> bool:
    """Return whether a folder belongs to a run of pgx, even if the run has just started."""
    return any((folder / name).is_file() for name in (METRICS, CONFIG, SUMMARY))


def pgx_run_folders(folder: Path) -> Iterator[Path]:
    """Return the folders of runs of pgx at and below a folder."""
    return (path for path, own in _folders(folder) if own)


def _folders(top: Path) -> Iterator[tuple[Path, bool]]:
    """Return each folder with a run, and whether it is a run of pgx. Folders inside a run of pgx are not searched."""
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
    """Read each run below the folders once. Return the runs, and a line for each run that cannot be read."""
    runs: dict[Path, RecordedRun] = {}
    problems = []
    for place in places:
        for folder, own in _folders(place.folder):
            if folder.resolve() in runs:
                continue
            try:
                runs[folder.resolve()] = _read(folder, own, place.labels)
            except UnreadableError as error:
                problems.append(str(error))
            except (OSError, ValueError, KeyError, TypeError) as error:
                problems.append(f"{folder}: cannot be read: {type(error).__name__}: {error}")
    return list(runs.values()), problems


def _read(folder: Path, own: bool, labels: Mapping[str, str]) -> RecordedRun:
    if own and (folder / METRICS).is_file():
        return _with_labels(read_pgx_run(folder), labels)
    if any(folder.glob(EVENT_FILES)):
        return read_foreign(folder, labels)
    raise UnreadableError(no_rows_message(folder))


def _with_labels(run: RecordedRun, labels: Mapping[str, str]) -> RecordedRun:
    """Return a run of pgx with the labels that the user gave."""
    return replace(
        run,
        env=labels.get("env", run.env),
        algo=labels.get("algo", run.algo),
        seed=labels.get("seed", run.seed),
    )
