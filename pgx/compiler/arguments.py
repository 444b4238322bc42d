"""The tensors in a function's arguments, and a description of everything else in them.

A compiled function takes tensors alone; all else (structure, plain values, the make of networks) is part of its code.
Two calls whose descriptions are equal may share that code; so a description may say too much, but never too little.
"""

import hashlib
import inspect
import sys
from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)
_MODULE_INTERNALS = frozenset(vars(nn.Module()))


class Undescribed(Exception):
    """An argument that no code can be kept for."""


def describe(value: Any) -> str:
    """Everything about a value but what its tensors hold, in words that are the same in every process.

    Raises:
        Undescribed: the value is of a kind that this cannot be said of.
    """
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, nn.Module):
        return f"{_name(type(value))}{{{_module(value)}}}"
    if is_dataclass(value) and not isinstance(value, type):
        inside = (f"{field.name}={describe(getattr(value, field.name))}" for field in fields(value))
        return f"{_name(type(value))}({', '.join(inside)})"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, partial):
        return f"partial({describe(value.func)}, {describe(value.args)}, {describe(sorted(value.keywords.items()))})"
    if inspect.ismethod(value):
        return f"{describe(value.__self__)}.{value.__name__}"
    if (
        inspect.isfunction(value) and "<" not in value.__qualname__
    ):  # a closure has values that a name does not tell
        return _name(value)
    if isinstance(value, type) or inspect.isbuiltin(value):
        return _name(value)
    raise Undescribed(f"{type(value).__name__} {value!r}")


def _module(network: nn.Module) -> str:
    """The attributes of a network and of those inside it, but for what every nn.Module has."""
    own = [
        f"{name}={describe(attribute)}"
        for name, attribute in sorted(vars(network).items())
        if name not in _MODULE_INTERNALS
    ]
    inner = [f"{name}={describe(child)}" for name, child in network.named_children()]
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
        raise Undescribed(f"{module}, whose source cannot be read,") from error
