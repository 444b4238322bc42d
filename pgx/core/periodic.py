"""What is due every so many environment steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PeriodicTrigger:
    """Something due each time the environment steps pass a multiple of `steps`; never when that is None."""

    steps: int | None

    def due(self, before: int, now: int) -> bool:
        return self.steps is not None and before // self.steps < now // self.steps
