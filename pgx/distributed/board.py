"""Where processes of several machines find what changes while they work: an actor of Ray's, and no more than that."""

from typing import Any


class Board:
    """The newest parameters that were published, and how many actors took the place of others that died.

    It imports no torch: what is published are references into the object store, which it never looks into.
    """

    def __init__(self) -> None:
        self._newest: tuple[int, list[Any]] | None = None
        self._met: set[int] = set()
        self._deaths = 0

    def publish(self, version: int, references: list[Any]) -> int:
        """Put other parameters in place of those that are there; returns how many actors have died.

        Args:
            version: of the parameters.
            references: to them; in a list, since Ray would look up a bare one.
        """
        self._newest = version, references
        return self._deaths

    def newest(self) -> tuple[int, list[Any]] | None:
        """Version and references of what was published last; None: nothing was."""
        return self._newest

    def join(self, index: int) -> int:
        """A process begins to be an actor; returns 0, or where one was before it how many have died by now.

        Args:
            index: of the actor.
        """
        if index not in self._met:
            self._met.add(index)
            return 0
        self._deaths += 1
        return self._deaths

    def deaths(self) -> int:
        """Actors that died and were started again."""
        return self._deaths
