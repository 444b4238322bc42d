"""Periodic triggers in environment steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PeriodicTrigger:
    """Trigger that fires when the environment steps pass a multiple of `steps`; None: never."""

    steps: int | None

    def due(self, before: int, now: int) -> bool:
        return self.steps is not None and before // self.steps < now // self.steps
