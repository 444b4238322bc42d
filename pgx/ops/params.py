"""Conversion between the parameters of a network and one flat vector."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Concatenate tensors in order into one vector [P], a detached copy."""
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut a vector [P] into views shaped like the given tensors; the inverse of `flatten`."""
    parts = torch.split(vector, [t.numel() for t in like])
    return [part.view_as(t) for part, t in zip(parts, like, strict=True)]


@torch.no_grad()
def assign(parameters: Sequence[Tensor], vector: Tensor) -> None:
    """Write a vector [P] into parameters in place, bit for bit."""
    for parameter, part in zip(parameters, split(vector, parameters), strict=True):
        parameter.copy_(part)


def gradient(objective: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return ∇ objective as one vector [P]; 0 for parameters that the objective does not depend on."""
    grads = torch.autograd.grad(objective, parameters, allow_unused=True)
    return flatten(torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True))
