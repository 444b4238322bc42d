"""A run: what it is, how it ended, and its metrics over environment steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
class Run:
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


def series(steps: list[float], values: list[float]) -> Series:
    """A series from rows in the order of writing."""
    at = np.asarray(steps, dtype=np.float64)
    order = np.argsort(at, kind="stable")
    return Series(at[order], np.asarray(values, dtype=np.float64)[order])


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by dotted key."""
    found: dict[str, Any] = {}
    for key, inner in values.items():
        if isinstance(inner, Mapping) and inner:
            found |= {f"{key}.{name}": leaf for name, leaf in flat(inner).items()}
        else:
            found[str(key)] = inner
    return found
