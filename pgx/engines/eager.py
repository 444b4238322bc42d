"""Functions as they are written, one tensor operation after another: the reference."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from pgx.types import Bound


class Eager:
    """Runs functions as they are."""

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        return partial(function, *fixed)

    def prepare(
        self, function: Callable[..., Callable[..., Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[..., Tensor]:
        return function(*fixed)
