"""The programs that a process has."""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from pgx.engines.call import Call


class Program(Protocol):
    """A compiled function of tensors."""

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]: ...

    def fold(
        self, fixed: Sequence[Tensor], items: Sequence[Tensor], state: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """result, *state = program(*fixed, item, *state) for each item; returns the results, and the last state."""
        ...


Programs = Sequence[Program]  # of a curried function two: of what is given first, and of what is left


class Known:
    """Programs of calls, one for each kind.

    Args:
        make: finds or makes those of a call; None where there can be none.
    """

    def __init__(self, make: Callable[[Call], Programs | None]) -> None:
        self._make = make
        self._programs: dict[object, Programs | None] = {}
        self._one_at_a_time = threading.Lock()
        self._alive: list[object] = []  # what `_programs` knows by identity, which must not pass to another

    def programs(self, call: Call, key: tuple[object, ...]) -> Programs | None:
        """The code of such a call; None where there can be none.

        Args:
            call: one of its kind.
            key: what tells the kind apart within a process.
        """
        with self._one_at_a_time:
            if key not in self._programs:
                self._programs[key] = self._make(call)
                alive = [argument for argument in call.fixed if callable(argument)]
                self._alive.append((call.function, alive))
            return self._programs[key]
