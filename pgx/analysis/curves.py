"""What a run wrote, as a doctor looks at it: curves of metrics, values of the config, how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pgx.analysis.statistics import Array
from pgx.runs.metrics import tag

_SMALLEST_WINDOW = 5  # looks: the fewest whose median one odd look does not move
_WINDOW_FRACTION = 0.1  # share of a run's looks that a median is taken over


@dataclass(frozen=True)
class MetricCurve:
    """One metric over environment steps."""

    key: str  # of pgx.runs.metrics
    steps: Array  # [n]
    values: Array  # [n]

    def __len__(self) -> int:
        return len(self.values)

    def medians(self) -> tuple[Array, Array, Array]:
        """Medians over windows of a tenth of the looks, 5 at least; the steps at which each begins; and ends; [m]."""
        width = min(len(self), max(_SMALLEST_WINDOW, round(_WINDOW_FRACTION * len(self))))
        if width == 0:
            return self.values, self.steps, self.steps
        windows = np.lib.stride_tricks.sliding_window_view(self.values, width)
        return np.median(windows, axis=1), self.steps[: len(windows)], self.steps[width - 1 :]


@dataclass(frozen=True)
class DiagnosedRun:
    """A run, as far as its files tell."""

    rows: list[dict[str, Any]]  # of metrics.jsonl
    config: Mapping[str, Any]  # as it was resolved; empty: not known
    summary: Mapping[str, Any] = field(default_factory=dict)  # how it ended; empty: it has not
    running: bool | None = None  # whether a process holds its lock; None: not known

    def value(self, key: str) -> Any:
        """A value of the config by its key, `algo.max_kl`; None: it has none of that name."""
        found: Any = self.config
        for name in key.split("."):
            if not isinstance(found, Mapping):
                return None
            found = found.get(name)
        return found

    def number(self, key: str) -> float | None:
        """The same where it is a number; None: it is something else."""
        found = self.value(key)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    def curve(self, key: str) -> MetricCurve:
        """A metric by its key in pgx.runs.metrics, at the looks that have it."""
        return self.curves(key)[0]

    def curves(self, *keys: str) -> list[MetricCurve]:
        """Several metrics, at the looks that have all of them."""
        tags = [tag(key) for key in keys]
        rows = [row for row in self.rows if all(isinstance(row.get(name), int | float) for name in tags)]
        steps = np.array([row["step"] for row in rows], dtype=float)
        return [
            MetricCurve(key, steps, np.array([row[name] for row in rows], dtype=float))
            for key, name in zip(keys, tags, strict=True)
        ]

    def logged_updates(self) -> int:
        """Updates whose health was measured."""
        return len(self.curve("kl"))

    def steps_per_update(self) -> float | None:
        """Environment steps that an update learned from, in the middle of the run; None: not known."""
        iteration = self.curve("iteration")
        if len(iteration) < 2:
            return None
        return float(np.median(np.diff(iteration.steps) / np.diff(iteration.values).clip(min=1)))
