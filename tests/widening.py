"""Optimizer with known steps: each epoch widens a Gaussian policy by a given factor."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pgx.core.algorithm import Loss
from pgx.ops.optim import NoSteps


class Widening(NoSteps):
    """Optimizer that adds a constant to a log std in every epoch, for any loss."""

    def __init__(self, network: nn.Module, log_std: nn.Parameter, by: float) -> None:
        super().__init__(network)
        self.log_std, self.by = log_std, by

    @torch.no_grad()
    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        self.log_std += self.by
        return torch.zeros(len(minibatches))


def kl_of_widening(by: float) -> float:
    """Return KL(old || new) in one dimension after the log std grew by `by`."""
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, torch.tensor(by).exp())
    return float(torch.distributions.kl_divergence(old, new))
