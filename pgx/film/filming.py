"""Videos of a run while it goes on."""

from collections.abc import Callable

from pgx.errors import RunError
from pgx.every import Every
from pgx.loggers import Clip
from pgx.records import Records


class Filming:
    """Puts a video into a run's records every so many environment steps; the run goes on without one that fails.

    Args:
        every: environment steps between videos; None for none.
        record: a video of the agent as it is now, given the iteration for its seed.
    """

    def __init__(self, every: int | None, record: Callable[[int], Clip]) -> None:
        self._every = Every(every)
        self._record = record

    def look(self, before: int, steps: int, iteration: int, records: Records) -> None:
        """Make one if it is due, after an iteration that went from `before` to `steps` environment steps."""
        if not self._every.due(before, steps):
            return
        try:
            records.film(steps, self._record(iteration))
        except RunError as error:
            records.warn(f"no video at {steps:,} steps: {error}")
