"""Videos of a run while it goes on."""

from collections.abc import Callable

from pgx.core.errors import RunError
from pgx.core.periodic import Every
from pgx.runs.loggers import Clip
from pgx.runs.writer import Records


class Filming:
    """Puts a video into a run's records every so many environment steps; the run goes on without one that fails.

    Args:
        every: environment steps between videos; None for none.
        record: a video of the agent as it is now, given the iteration for its seed, and what asks it to stop.
    """

    def __init__(self, every: int | None, record: Callable[[int, Callable[[], bool]], Clip]) -> None:
        self._every = Every(every)
        self._record = record

    def look(
        self, before: int, steps: int, iteration: int, records: Records, should_stop: Callable[[], bool]
    ) -> None:
        """Make one if it is due, after an iteration that went from `before` to `steps` environment steps.

        Once `should_stop` returns true, the video under way is dropped.
        """
        if not self._every.due(before, steps) or should_stop():
            return
        try:
            clip = self._record(iteration, should_stop)
            if not should_stop():
                records.film(steps, clip)
        except RunError as error:
            records.warn(f"no video at {steps:,} steps: {error}")
