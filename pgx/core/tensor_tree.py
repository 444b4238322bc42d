"""Tensors in nested arguments: dataclasses, sequences and networks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def tensor_leaves(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value, in a fixed order; a network's are its parameters, then its buffers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from (tensor for _, tensor in named_tensors(value))
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensor_leaves(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensor_leaves(item)


def replace_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return the value with other tensors; networks are kept (see `substituted`)."""
    if isinstance(value, Tensor):
        return next(tensors)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(*(replace_tensors(getattr(value, field.name), tensors) for field in fields(value)))
    if isinstance(value, tuple | list):
        return tuple(replace_tensors(item, tensors) for item in value)
    return value


def named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Return parameters and buffers with their names."""
    return [*network.named_parameters(), *network.named_buffers()]


class _Held(nn.Module):
    """Module of networks whose tensors are replaced in one call."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


def call_with_tensors(
    networks: Sequence[tuple[nn.Module, Mapping[str, Tensor]]], function: Callable[..., Any], *arguments: Any
) -> Any:
    """Return function(*arguments) with parameters or buffers of networks replaced, by name."""
    tensors = {
        f"networks.{i}.{name}": tensor for i, (_, own) in enumerate(networks) for name, tensor in own.items()
    }
    held = _Held([network for network, _ in networks])
    return functional_call(held, tensors, (function, *arguments))
