"""An optimizer whose steps are known beforehand: each sweep widens a Gaussian policy by a given factor."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pgx.core.algorithm import Loss
from pgx.ops.optim import NoSteps


class Widening(NoSteps):
    """Adds one number to a log std in every sweep, whatever the loss."""

    def __init__(self, network: nn.Module, log_std: nn.Parameter, by: float) -> None:
        super().__init__(network)
        self.log_std, self.by = log_std, by

    @torch.no_grad()
    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        self.log_std += self.by
        return torch.zeros(len(minibatches))


def kl_of_widening(by: float) -> float:
    """KL(old || new) in one dimension, after the log std grew by a number."""
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, torch.tensor(by).exp())
    return float(torch.distributions.kl_divergence(old, new))
