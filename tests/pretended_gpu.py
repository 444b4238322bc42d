"""A GPU for machines without one: tensors that say they are on it, refuse others, and are computed by the processor.

So the way of a run under device=cuda can be gone where there is none: a tensor that was left behind, or is used where
it is not, fails as it would there. Of speed, and of what kernels round, it says nothing.
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

GPU = torch.device("meta")  # a name that every build of torch has room for
_MOVES = {"_to_copy", "copy_", "_pin_memory"}  # from one device to another


class OnGPU(Tensor):
    """A tensor on the GPU that is not there."""

    held: Tensor
    is_meta = False  # but for its name

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
        return self.cpu().tolist()  # which torch does not do for a subclass

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.cpu().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]  # in a file a tensor has no class of its own

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(operation, args, kwargs or {})


class _Everywhere(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees operations without such tensors too: those that make or move one."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(operation, args, kwargs or {})


def _run(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation, by the processor, on the device where torch would do it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    name = operation._schema.name.removeprefix("aten::")
    # A number may stay where it is; anything else has to be brought.
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

    def brought(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else OnGPU(leaf)  # in place: the tensor that was given

    return tree_map(brought, result)


class _Generator(torch.Generator):
    """Of the processor's numbers, wherever it is asked for."""

    def __new__(cls, device: torch.device | str = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


class _Renaming:
    """torch, but for the name of the device."""

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
    """torch.tensor, which forgets the data of a tensor with this name of a device."""
    made = _made(data, **kwargs)
    return made if device is None else made.to(device)


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While this lasts, device=cuda works."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(sys.modules["pgx.training.build"], "torch", _Renaming())
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch, "tensor", _tensor)
        # Parameters that change their class cannot be changed in place.
        patch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
        with _Everywhere():  # type: ignore[no-untyped-call]
            yield
