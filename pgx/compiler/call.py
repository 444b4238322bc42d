"""A call of a function, as what a program is made from."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pgx
from pgx.compiler.arguments import describe
from pgx.core.tensor_tree import leaves


@dataclass(frozen=True)
class Call:
    """A function and the arguments of one call of it, as what a program is made from."""

    function: Callable[..., tuple[Tensor, ...]]
    fixed: tuple[Any, ...]
    varying: tuple[Tensor, ...]
    rows: int | None  # first size of those tensors among `fixed` that may have any
    ragged: tuple[int, ...]  # positions among `varying` that may have any first size

    def sizes(self) -> Iterator[tuple[Tensor, str | None]]:
        """Every tensor of the call, and by which name its first size is free; None: it is a constant."""
        for argument in self.fixed:
            network = isinstance(argument, nn.Module)
            for leaf in leaves(argument):
                free = not network and self.rows is not None and leaf.shape[:1] == (self.rows,)
                yield leaf, "rows" if free else None
        for position, tensor in enumerate(self.varying):
            yield tensor, "ragged" if position in self.ragged else None

    def name(self) -> str:
        """The function, and those among its arguments, for people."""
        function = self.function.function if isinstance(self.function, Curried) else self.function
        names = [getattr(argument, "__qualname__", None) for argument in (function, *self.fixed)]
        return " of ".join(name for name in names if name)

    def description(self) -> str:
        """All of it that goes into the code, in words that are the same in every process.

        Raises:
            Undescribed: there are none for some of it.
        """
        values = [describe(self.function), *map(describe, self.fixed)]
        signatures = [repr(signature(leaf, free is not None)) for leaf, free in self.sizes()]
        return "\n".join([*values, *signatures, _surroundings()])


@dataclass(frozen=True)
class Curried:
    """function(a, b)(c) as a function of a, b and c."""

    function: Callable[..., Callable[[Tensor], Tensor]]
    outer: int  # arguments that the first call takes

    def __call__(self, *arguments: Any) -> tuple[Tensor]:
        return (self.function(*arguments[: self.outer])(*arguments[self.outer :]),)


def signature(tensor: Tensor, free: bool) -> tuple[object, ...]:
    """What of a tensor goes into the code: its type and constant sizes."""
    return (tensor.dtype, tensor.device, free, tensor.shape[1:] if free else tensor.shape)


def _surroundings() -> str:
    """What else decides the code: pgx itself, torch, the processor, the threads it may use."""
    return f"{_sources()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"


@cache
def _sources() -> str:
    """A digest of pgx."""
    digest = hashlib.sha256()
    for path in sorted(Path(pgx.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
