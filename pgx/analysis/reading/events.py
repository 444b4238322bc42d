"""What TensorBoard's event files of a folder hold: scalars and texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.util import tensor_util

from pgx.analysis.reading.run import Array

PATTERN = "events.out.tfevents.*"


@dataclass(frozen=True)
class Recorded:
    """One tag, in the order of writing."""

    steps: Array  # [n]
    values: Array  # [n]
    clock: Array  # [n], seconds of writing: since its file was opened, and those that earlier files took


@dataclass
class _Column:
    steps: list[float]
    values: list[float]
    clock: list[float]

    def cut(self, step: float) -> None:
        """Forget what was written of this step and later."""
        keep = [i for i, known in enumerate(self.steps) if known < step]
        for column in (self.steps, self.values, self.clock):
            column[:] = [column[i] for i in keep]


def read_events(folder: Path) -> tuple[dict[str, Recorded], dict[str, str]]:
    """Scalars and texts by tag, of all event files directly in a folder.

    A file that ends within a record is read up to there: it may be growing. Where a later file of the run begins at an
    earlier step than one before it ended, the run was resumed, and what the earlier has from there on is not of it.
    """
    columns: dict[str, _Column] = {}
    texts: dict[str, str] = {}
    before = 0.0  # seconds that earlier files took
    for path in sorted(folder.glob(PATTERN)):
        opened, last, new = None, 0.0, set[str]()
        for event in LegacyEventFileLoader(str(path)).Load():
            opened = event.wall_time if opened is None else opened
            last = event.wall_time - opened
            for entry in event.summary.value:
                if entry.metadata.plugin_data.plugin_name == "text":
                    texts[entry.tag] = b"".join(entry.tensor.string_val).decode(errors="replace")
                    continue
                number = _scalar(entry)
                if number is None:
                    continue
                column = columns.setdefault(entry.tag, _Column([], [], []))
                if entry.tag not in new:
                    new.add(entry.tag)
                    column.cut(event.step)
                column.steps.append(event.step)
                column.values.append(number)
                column.clock.append(before + last)
        before += last
    return {
        tag: Recorded(np.asarray(c.steps, dtype=np.float64), np.asarray(c.values), np.asarray(c.clock))
        for tag, c in columns.items()
    }, texts


def _scalar(entry: Any) -> float | None:
    """A finite number, in the form of either generation of writers."""
    if entry.HasField("simple_value"):
        number = float(entry.simple_value)
    elif entry.metadata.plugin_data.plugin_name == "scalars" and entry.HasField("tensor"):
        number = float(tensor_util.make_ndarray(entry.tensor))
    else:
        return None
    return number if np.isfinite(number) else None
