"""Metrics, config and summary of a run, as the diagnosis reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pgx.analysis.statistics import Array
from pgx.runs.metrics import tag

_SMALLEST_WINDOW = 5  # logged updates: a single outlier does not change the median of five
_WINDOW_FRACTION = 0.1  # of a run's logged updates


@dataclass(frozen=True)
class MetricCurve:
    """One metric over environment steps.

    Args:
        key: of pgx.runs.metrics.
        steps: environment steps [n].
        values: in the metric's unit [n].
    """

    key: str
    steps: Array
    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def medians(self) -> tuple[Array, Array, Array]:
        """Return medians over sliding windows of a tenth of the rows, at least 5.

        Returns:
            Medians [m], and the steps at which each window begins and ends [m].
        """
        width = min(len(self), max(_SMALLEST_WINDOW, round(_WINDOW_FRACTION * len(self))))
        if width == 0:
            return self.values, self.steps, self.steps
        windows = np.lib.stride_tricks.sliding_window_view(self.values, width)
        return np.median(windows, axis=1), self.steps[: len(windows)], self.steps[width - 1 :]


@dataclass(frozen=True)
class DiagnosedRun:
    """Contents of a run's files.

    Args:
        rows: of metrics.jsonl.
        config: resolved config; empty: unknown.
        summary: of summary.json; empty: the run has not ended.
        running: a process holds the run's lock; None: unknown.
    """

    rows: list[dict[str, Any]]
    config: Mapping[str, Any]
    summary: Mapping[str, Any] = field(default_factory=dict)
    running: bool | None = None

    def value(self, key: str) -> Any:
        """Return a value of the config by its dotted key, for example algo.max_kl; None if it does not exist."""
        found: Any = self.config
        for name in key.split("."):
            if not isinstance(found, Mapping):
                return None
            found = found.get(name)
        return found

    def number(self, key: str) -> float | None:
        """Return a value of the config that is a number; None if it is not."""
        found = self.value(key)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    def curve(self, key: str) -> MetricCurve:
        """Return a metric by its key in pgx.runs.metrics, from the rows that have it."""
        return self.curves(key)[0]

    def curves(self, *keys: str) -> list[MetricCurve]:
        """Return several metrics, from the rows that have all of them."""
        tags = [tag(key) for key in keys]
        rows = [row for row in self.rows if all(isinstance(row.get(name), int | float) for name in tags)]
        steps = np.array([row["step"] for row in rows], dtype=float)
        return [
            MetricCurve(key, steps, np.array([row[name] for row in rows], dtype=float))
            for key, name in zip(keys, tags, strict=True)
        ]

    def logged_updates(self) -> int:
        """Return the number of updates whose health was measured."""
        return len(self.curve("kl"))

    def steps_per_update(self) -> float | None:
        """Return the median number of environment steps per update; None if unknown."""
        iteration = self.curve("iteration")
        if len(iteration) < 2:
            return None
        return float(np.median(np.diff(iteration.steps) / np.diff(iteration.values).clip(min=1)))
