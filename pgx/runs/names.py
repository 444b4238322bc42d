"""Readable names for the runs below a folder, for example Walker2d-v4/trpo/seed0."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pgx.config.run_config import flatten_config
from pgx.config.stored import CONFIG, read_config
from pgx.core.errors import UserError

EVENTS = "events.out.tfevents."  # part of the names of TensorBoard's files
MANY = 3  # values in a name at most; runs that differ in more get the folder's name
_NAMED = {"env.id", "label", "algo.name", "seed", "run_dir"}  # parts of the name, or no settings
# Keys that do not change what a run learns.
_OPERATION = (
    "device", "torch_threads", "env.num_threads", "env.worker_timeout", "trainer.checkpoint_every",
    "trainer.keep_checkpoints", "trainer.disk_retry_seconds", "trainer.eval_", "trainer.record_", "trainer.compile",
    "health.", "logger.", "runner.address", "runner.connect_seconds", "runner.max_restarts",
)  # fmt: skip
_LENGTH = "trainer.total_steps"  # in a name only if nothing else differs, since charts show it


def runs_below(folder: Path) -> Iterator[Path]:
    """Yield the outermost folders that contain TensorBoard's events, sorted by path."""
    for where, below, files in os.walk(folder):
        below.sort()
        if any(EVENTS in name for name in files):
            yield Path(where)
            below.clear()


class RunNames:
    """Registry of unique names of runs.

    The first run of an environment, label and seed is <env>/<label>/seed<seed>. Later ones add the values that differ
    from the first and change what is learned, or the name of the folder. A run of another program is named by its path.

    Args:
        folder: folder that contains all runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, str] = {}
        self._first: dict[str, Mapping[str, Any]] = {}  # values of the run with this short name

    def of(self, run: Path) -> str:
        """Return the name of a run: a relative path without `..`."""
        if run not in self._known:
            self._known[run] = self._free(self._proposed(run))
        return self._known[run]

    def _proposed(self, run: Path) -> str:
        values = _values(run)
        if values is None:
            inside = run.relative_to(self._folder).parts
            return "/".join(map(_part, inside)) or _part(run.resolve().name)
        short = f"{_part(values['env.id'])}/{_part(values['label'])}/seed{_part(values['seed'])}"
        if short not in self._first:
            self._first[short] = values
            return short
        first = self._first[short]
        keys = [key for key in values if key not in _NAMED and not key.startswith(_OPERATION)]
        other = [key for key in keys if values[key] != first.get(key)]
        other = [key for key in other if key != _LENGTH] or other
        suffix = " ".join(f"{key}={values[key]}" for key in other) if 0 < len(other) <= MANY else run.name
        return f"{short} {_part(suffix)}"

    def _free(self, name: str) -> str:
        """Return the name, with a number if it is taken. No name is a parent path of another."""
        taken = set(self._known.values())
        if any(
            f"{name}/".startswith(f"{other}/") or f"{other}/".startswith(f"{name}/")
            for other in taken - {name}
        ):
            name = name.replace("/", " ")
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name} ({number})"
        return free


def _values(run: Path) -> dict[str, Any] | None:
    """Return a run's config by dotted key; None if it has no config of pgx."""
    path = run / CONFIG
    if not path.is_file():
        return None
    try:
        values = flatten_config(OmegaConf.to_container(read_config(path), resolve=False))
    except UserError:
        return None
    return values if {"env.id", "label", "seed"} <= values.keys() else None


def _part(text: Any) -> str:
    """Return a text as one part of a path."""
    plain = re.sub(r"[/\\\x00-\x1f]+", "_", str(text))
    return plain if plain.strip(".") else "_"
