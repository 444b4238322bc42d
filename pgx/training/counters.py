"""How far a run has come, and how it ended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

RECENT = 20  # episodes in the running mean that "best" and "final" returns are taken from

Status = Literal["finished", "interrupted", "pruned", "failed"]


@dataclass
class Counters:
    """How far a run has come; part of every checkpoint."""

    steps: int = 0  # environment steps
    iterations: int = 0
    seconds: float = 0.0  # wall clock, over all lives of the run
    recent: list[float] = field(default_factory=list)  # raw returns of the last episodes, RECENT at most
    best_return: float | None = None  # largest mean of a full `recent`
    best_steps: int | None = None
    skipped: int = 0  # updates that were undone, since they made parameters NaN or infinite
    rows: int = 0  # of metrics, logged

    @property
    def recent_return(self) -> float | None:
        """Mean of `recent`; None before an episode ended."""
        return float(np.mean(self.recent)) if self.recent else None

    def summary(self, status: Status, failure: str | None) -> dict[str, Any]:
        """Return what summary.json holds of a run that ended so."""
        return {
            "status": status,
            "error": failure,
            "steps": self.steps,
            "iterations": self.iterations,
            "seconds": round(self.seconds, 3),
            "steps_per_second": round(self.steps / self.seconds, 1) if self.seconds > 0 else None,
            "final_return": self.recent_return,
            "final_return_episodes": len(self.recent),
            "best_return": self.best_return,
            "best_steps": self.best_steps,
        }

    def note(self, returns: Sequence[float]) -> bool:
        """Count the returns of ended episodes; returns whether the mean of a full `recent` is the best so far."""
        self.recent = [*self.recent, *returns][-RECENT:]
        mean = float(np.mean(self.recent)) if len(self.recent) == RECENT else -math.inf
        if mean <= (-math.inf if self.best_return is None else self.best_return):
            return False
        self.best_return, self.best_steps = mean, self.steps
        return True
