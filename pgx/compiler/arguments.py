"""The tensors in a function's arguments, and a description of everything else in them.

A compiled function takes tensors alone; all else (structure, plain values, the make of networks) is part of its code.
Two calls whose descriptions are equal may share that code; so a description may say too much, but never too little.

A call of a function, as what a program is made from.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pgx
from pgx.core.tensor_tree import tensor_leaves

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)
_MODULE_INTERNALS = frozenset(vars(nn.Module()))


class NotDescribable(Exception):
    """An argument that no code can be kept for."""


def describe_arguments(value: Any) -> str:
    """Everything about a value but what its tensors hold, in words that are the same in every process.

    Raises:
        NotDescribable: the value is of a kind that this cannot be said of.
    """
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, nn.Module):
        return f"{_name(type(value))}{{{_module(value)}}}"
    if is_dataclass(value) and not isinstance(value, type):
        inside = (f"{field.name}={describe_arguments(getattr(value, field.name))}" for field in fields(value))
        return f"{_name(type(value))}({', '.join(inside)})"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(describe_arguments, value))}]"
    if isinstance(value, partial):
        parts = (value.func, value.args, sorted(value.keywords.items()))
        return f"partial({', '.join(map(describe_arguments, parts))})"
    if inspect.ismethod(value):
        return f"{describe_arguments(value.__self__)}.{value.__name__}"
    if (
        inspect.isfunction(value) and "<" not in value.__qualname__
    ):  # a closure has values that a name does not tell
        return _name(value)
    if isinstance(value, type) or inspect.isbuiltin(value):
        return _name(value)
    raise NotDescribable(f"{type(value).__name__} {value!r}")


def _module(network: nn.Module) -> str:
    """The attributes of a network and of those inside it, but for what every nn.Module has."""
    own = [
        f"{name}={describe_arguments(attribute)}"
        for name, attribute in sorted(vars(network).items())
        if name not in _MODULE_INTERNALS
    ]
    inner = [f"{name}={describe_arguments(child)}" for name, child in network.named_children()]
    return ", ".join([*own, *inner])


def _name(what: Any) -> str:
    return f"{what.__module__}.{what.__qualname__}{_source(what.__module__)}"


@cache
def _source(module: str) -> str:
    """A digest of a module's source; nothing for pgx and torch, which are described as a whole."""
    if module.split(".")[0] in ("pgx", "torch", "builtins"):
        return ""
    try:
        return "#" + hashlib.sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()
    except (OSError, TypeError) as error:
        raise NotDescribable(f"{module}, whose source cannot be read,") from error


@dataclass(frozen=True)
class FunctionCall:
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
            for leaf in tensor_leaves(argument):
                free = not network and self.rows is not None and leaf.shape[:1] == (self.rows,)
                yield leaf, "rows" if free else None
        for position, tensor in enumerate(self.varying):
            yield tensor, "ragged" if position in self.ragged else None

    def name(self) -> str:
        """The function, and those among its arguments, for people."""
        function = self.function.function if isinstance(self.function, CurriedFunction) else self.function
        names = [getattr(argument, "__qualname__", None) for argument in (function, *self.fixed)]
        return " of ".join(name for name in names if name)

    def description(self) -> str:
        """All of it that goes into the code, in words that are the same in every process.

        Raises:
            NotDescribable: there are none for some of it.
        """
        values = [describe_arguments(self.function), *map(describe_arguments, self.fixed)]
        signatures = [repr(call_signature(leaf, free is not None)) for leaf, free in self.sizes()]
        return "\n".join([*values, *signatures, _surroundings()])


@dataclass(frozen=True)
class CurriedFunction:
    """function(a, b)(c) as a function of a, b and c."""

    function: Callable[..., Callable[[Tensor], Tensor]]
    outer: int  # arguments that the first call takes

    def __call__(self, *arguments: Any) -> tuple[Tensor]:
        return (self.function(*arguments[: self.outer])(*arguments[self.outer :]),)


def call_signature(tensor: Tensor, free: bool) -> tuple[object, ...]:
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
