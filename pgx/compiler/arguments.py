"""Calls of functions to compile, and descriptions of their arguments.

A compiled function takes only tensors. Everything else (structure, plain values, the layers of networks) is part of its
code. Calls with equal descriptions share that code, so a description may contain too much, but never too little.
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
    """An argument has no description, so its code cannot be stored."""


def describe_arguments(value: Any) -> str:
    """Return a description of a value without the elements of its tensors; it is equal in every process.

    Raises:
        NotDescribable: values of this type have no description.
    """
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, nn.Module):
        return f"{_qualified_name(type(value))}{{{_module_attributes(value)}}}"
    if is_dataclass(value) and not isinstance(value, type):
        inside = (f"{field.name}={describe_arguments(getattr(value, field.name))}" for field in fields(value))
        return f"{_qualified_name(type(value))}({', '.join(inside)})"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(describe_arguments, value))}]"
    if isinstance(value, partial):
        parts = (value.func, value.args, sorted(value.keywords.items()))
        return f"partial({', '.join(map(describe_arguments, parts))})"
    if inspect.ismethod(value):
        return f"{describe_arguments(value.__self__)}.{value.__name__}"
    if (
        inspect.isfunction(value) and "<" not in value.__qualname__
    ):  # the name of a closure does not contain its values
        return _qualified_name(value)
    if isinstance(value, type) or inspect.isbuiltin(value):
        return _qualified_name(value)
    raise NotDescribable(f"{type(value).__name__} {value!r}")


def _module_attributes(network: nn.Module) -> str:
    """Describe the attributes of a network and its children, except those that every nn.Module has."""
    own = [
        f"{name}={describe_arguments(attribute)}"
        for name, attribute in sorted(vars(network).items())
        if name not in _MODULE_INTERNALS
    ]
    inner = [f"{name}={describe_arguments(child)}" for name, child in network.named_children()]
    return ", ".join([*own, *inner])


def _qualified_name(what: Any) -> str:
    return f"{what.__module__}.{what.__qualname__}{_source_digest(what.__module__)}"


@cache
def _source_digest(module: str) -> str:
    """Return a digest of the source of a module, or "" for pgx and torch, which `_environment` describes."""
    if module.split(".")[0] in ("pgx", "torch", "builtins"):
        return ""
    try:
        return "#" + hashlib.sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()
    except (OSError, TypeError) as error:
        raise NotDescribable(f"{module}, whose source cannot be read,") from error


@dataclass(frozen=True)
class FunctionCall:
    """Function and arguments of a call, from which a program is compiled."""

    function: Callable[..., tuple[Tensor, ...]]
    fixed: tuple[Any, ...]
    inputs: tuple[Tensor, ...]
    rows: int | None  # first size of the tensors in `fixed` whose first size is dynamic
    ragged: tuple[int, ...]  # positions in `inputs` of tensors whose first size is dynamic

    def sizes(self) -> Iterator[tuple[Tensor, str | None]]:
        """Yield each tensor of the call and the name of its dynamic first size, or None if all sizes are constant."""
        for argument in self.fixed:
            network = isinstance(argument, nn.Module)
            for leaf in tensor_leaves(argument):
                free = not network and self.rows is not None and leaf.shape[:1] == (self.rows,)
                yield leaf, "rows" if free else None
        for position, tensor in enumerate(self.inputs):
            yield tensor, "ragged" if position in self.ragged else None

    def name(self) -> str:
        """Return the name of the function and of functions in its arguments, for messages."""
        function = self.function.function if isinstance(self.function, CurriedFunction) else self.function
        names = [getattr(argument, "__qualname__", None) for argument in (function, *self.fixed)]
        return " of ".join(name for name in names if name)

    def description(self) -> str:
        """Return a description of everything that determines the code; it is equal in every process.

        Raises:
            NotDescribable: an argument has no description.
        """
        values = [describe_arguments(self.function), *map(describe_arguments, self.fixed)]
        signatures = [repr(call_signature(leaf, free is not None)) for leaf, free in self.sizes()]
        return "\n".join([*values, *signatures, _environment()])


@dataclass(frozen=True)
class CurriedFunction:
    """Function of a, b and c that returns function(a, b)(c)."""

    function: Callable[..., Callable[[Tensor], Tensor]]
    outer: int  # number of arguments of the first call

    def __call__(self, *arguments: Any) -> tuple[Tensor]:
        return (self.function(*arguments[: self.outer])(*arguments[self.outer :]),)


def call_signature(tensor: Tensor, free: bool) -> tuple[object, ...]:
    """Return the properties of a tensor that determine the code: type, device and constant sizes."""
    return (tensor.dtype, tensor.device, free, tensor.shape[1:] if free else tensor.shape)


def _environment() -> str:
    """Describe what else determines the code: pgx, torch, the processor and the number of threads."""
    return f"{_pgx_digest()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"


@cache
def _pgx_digest() -> str:
    """Return a digest of the sources of pgx."""
    digest = hashlib.sha256()
    for path in sorted(Path(pgx.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
