"""Stop requests that end an iteration in its middle."""

from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


class IterationAbandoned(BaseException):
    """Raised by a stop request in the middle of an iteration.

    Not an Exception: an environment that catches every Exception must not catch it.
    """


class QuietInterrupt(KeyboardInterrupt):
    """Ctrl-C that prints nothing more: a message was printed, or Ctrl-C is the normal end of the command."""


class StopAtCheckpoint(KeyboardInterrupt):
    """Request that stops a run without a new checkpoint."""


class Abandonable:
    """Work of the main thread that a signal handler may end at any point."""

    def __init__(self) -> None:
        self._inside = False

    def run(self, work: Callable[[], _Result]) -> _Result | None:
        """Do the work; return its result, or None if `abandon` ended it."""
        try:
            try:
                self._inside = True
                result = work()
            finally:
                self._inside = False
        except IterationAbandoned:
            return None
        return result

    def abandon(self) -> None:
        """End the current work; do nothing if there is none.

        Raises:
            IterationAbandoned: inside the work.
        """
        if self._inside:
            self._inside = False
            raise IterationAbandoned
