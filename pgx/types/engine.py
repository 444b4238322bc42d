"""What runs the arithmetic of policies, critics and optimizers."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

Bound = Callable[..., tuple[Tensor, ...]]


class Engine(Protocol):
    """Runs pure functions of networks and tensors: as they are written, or compiled to the same."""

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        """The function with its first arguments given; the others, tensors all, are what it is then called with.

        Args:
            function: pure; a function of a module, or a method of a dataclass of plain values. What Python decides in
                it may depend on shapes and plain values, not on what tensors hold.
            fixed: networks (as they are at each call), data classes, tuples, tensors and plain values.
            rows: B, where tensors among `fixed` (networks apart) whose first size is B may have another in the next
                call; the code is the same for all of them. None: every size is a constant of the code.
            ragged: which of the other arguments, by position, may likewise have any first size, the same for all.

        Returns:
            (*tensors) -> tuple of tensors, outside of autograd where it is compiled.
        """
        ...

    def prepare(
        self, function: Callable[..., Callable[..., Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[..., Tensor]:
        """function(*fixed), which is itself a function, of tensors to a tensor.

        Where nothing is compiled, what the outer function does is done once, before the inner one is called.

        Args as in `bind`.
        """
        ...
