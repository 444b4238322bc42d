"""What runs the arithmetic of policies, critics and optimizers."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor

Result = TypeVar("Result")


class Bound(Protocol):
    """A function some of whose arguments are given; the others are tensors."""

    def __call__(self, *varying: Tensor) -> tuple[Tensor, ...]: ...

    def fold(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        """result, *state = function(item, *state) for each item in turn; returns the results and the last state."""
        ...


class Binds(Protocol):
    """What a runner asks of an engine."""

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


class Engine(Binds, Protocol):
    """Runs pure functions of networks and tensors: as they are written, or compiled to the same."""

    def prepare(
        self, function: Callable[..., Callable[[Tensor], Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        """function(*fixed), which is itself a function, of a tensor to a tensor.

        Where nothing is compiled, what the outer function does is done once, before the inner one is called.

        Args as in `bind`.
        """
        ...

    def beside(self, function: Callable[..., Result], *arguments: Any) -> Callable[[], Result]:
        """function(*arguments), begun now, and beside what follows where that is of use; call what is returned for it.

        Until then nothing may touch what the function changes, nor change what it reads.
        """
        ...

    def settle(self) -> None:
        """Wait until no function that `beside` began is running; its result, or what it raised, is dropped.

        A caller that ends between `beside` and the call for the result leaves the function running.
        """
        ...
