"""Simulated GPU: tensors that report a GPU as their device, reject those on other devices, and compute on the CPU.

It tests runs with device=cuda on machines without one: an operation on tensors of different devices fails as on a GPU.
It tests neither speed nor the rounding of kernels.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("meta")  # a device name that every build of torch has
_MOVES = {"_to_copy", "copy_", "_pin_memory"}  # from one device to another


class OnGPU(Tensor):
    """Tensor on the simulated GPU."""

    held: Tensor
    is_meta = False  # except for its name

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGPU":
        return Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=GPU
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnGPU({self.held!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()  # torch does not do this for a subclass

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.cpu().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]  # in a file a tensor has no class of its own

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(operation, args, kwargs or {})


class _Everywhere(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that also intercepts operations that create or move simulated tensors."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(operation, args, kwargs or {})


def _run(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the CPU; its result is on the device where torch would put it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    name = operation._schema.name.removeprefix("aten::")
    # A scalar may stay on its device; other tensors must be moved.
    left_behind = [tensor for tensor in tensors if not isinstance(tensor, OnGPU) and tensor.dim() > 0]
    if there and left_behind and name not in _MOVES:
        raise RuntimeError(f"{name}: expected all tensors to be on one device, found GPU and cpu")
    asked = kwargs.get("device")
    onto = bool(there) if asked is None else torch.device(asked) == GPU
    known = {id(tensor.held): tensor for tensor in there}
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(
        lambda leaf: leaf.held if isinstance(leaf, OnGPU) else leaf, (tuple(args), dict(kwargs))
    )
    result = operation(*args, **kwargs)
    if name == "copy_" and not isinstance(tensors[0], OnGPU):
        return tensors[0]
    if not onto:
        return result

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else OnGPU(leaf)  # in place: return the same tensor

    return tree_map(moved, result)


class _Generator(torch.Generator):
    """Generator with the random numbers of the CPU on any device."""

    def __new__(cls, device: torch.device | str = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


class _Renaming:
    """Module torch with another name of the device."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def device(self, name: str) -> torch.device:
        return GPU if name == "cuda" else torch.device(name)


def _tensor(
    data: Any,
    *,
    device: torch.device | str | None = None,
    _made: Callable[..., Tensor] = torch.tensor,
    **kwargs: Any,
) -> Tensor:
    """Replace torch.tensor, which drops the data of a tensor on this device."""
    made = _made(data, **kwargs)
    return made if device is None else made.to(device)


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make device=cuda work within the context."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(sys.modules["pgx.training.build"], "torch", _Renaming())
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch, "tensor", _tensor)
        # Parameters whose class changes cannot be modified in place.
        patch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
        with _Everywhere():  # type: ignore[no-untyped-call]
            yield
