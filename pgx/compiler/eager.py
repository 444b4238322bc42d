"""Functions as they are written, one tensor operation after another: the reference."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pgx.core.algorithm import Bound, _Result


class EagerFunction:
    """A function some of whose arguments are given."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], fixed: tuple[Any, ...]) -> None:
        self.function = function
        self.fixed = fixed

    def __call__(self, *varying: Tensor) -> tuple[Tensor, ...]:
        return self.function(*self.fixed, *varying)

    def scan(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        results = []
        for item in items:
            result, *state = self(item, *state)
            results.append(result)
        return results, state


class Eager:
    """Runs functions as they are."""

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        return EagerFunction(function, fixed)

    def prepare(
        self, function: Callable[..., Callable[[Tensor], Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        return function(*fixed)

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Callable[[], _Result]:
        """At once: two threads of Python hold each other up."""
        result = function(*arguments)
        return lambda: result

    def settle(self) -> None:
        """Return at once: nothing runs in another thread."""
