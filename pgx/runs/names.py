"""Runs below a folder, under names that people read: Walker2d-v4/trpo/seed0."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pgx.config.cross_checks import flat
from pgx.config.stored import CONFIG, read_config
from pgx.core.errors import UserError

EVENTS = "events.out.tfevents."  # what TensorBoard looks for in the name of a file
MANY = 3  # values that a name may tell of; of runs that differ in more it tells the folder
_NAMED = {"env.id", "label", "algo.name", "seed", "run_dir"}  # what a name says already, or what is no choice
# Values that change how a run is carried out or watched, not what it learns.
_OPERATION = (
    "device", "torch_threads", "env.num_threads", "env.worker_timeout", "trainer.checkpoint_every",
    "trainer.keep_checkpoints", "trainer.disk_retry_seconds", "trainer.eval_", "trainer.record_", "trainer.compile",
    "health.", "logger.", "runner.address", "runner.connect_seconds", "runner.max_restarts",
)  # fmt: skip
_LENGTH = "trainer.total_steps"  # a chart shows it; a name says it where nothing else differs


def runs_below(folder: Path) -> Iterator[Path]:
    """Folders with TensorBoard's events, in the order of their paths; what is within one is TensorBoard's to find."""
    for where, below, files in os.walk(folder):
        below.sort()
        if any(EVENTS in name for name in files):
            yield Path(where)
            below.clear()


class RunNames:
    """Gives each run a name of its own and keeps to it.

    The first of an environment, a label and a seed is <env>/<label>/seed<seed>. The name of a later one adds the values
    that differ from the first and change what is learned, or else its folder. A run of another program is named by its
    path.

    Args:
        folder: that all runs are in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, str] = {}
        self._first: dict[str, Mapping[str, Any]] = {}  # the values of the run that bears a short name

    def of(self, run: Path) -> str:
        """A relative path of names, none of which leads elsewhere."""
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
        told = " ".join(f"{key}={values[key]}" for key in other) if 0 < len(other) <= MANY else run.name
        return f"{short} {_part(told)}"

    def _free(self, name: str) -> str:
        """The name itself, or with the next number that nobody has; none is within another, as folders would be."""
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
    """A run's config by dotted key; None: it has none that pgx wrote."""
    path = run / CONFIG
    if not path.is_file():
        return None
    try:
        values = flat(OmegaConf.to_container(read_config(path), resolve=False))
    except UserError:
        return None
    return values if {"env.id", "label", "seed"} <= values.keys() else None


def _part(text: Any) -> str:
    """One name of a path, of whatever it is."""
    plain = re.sub(r"[/\\\x00-\x1f]+", "_", str(text))
    return plain if plain.strip(".") else "_"
