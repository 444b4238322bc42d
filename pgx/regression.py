"""Fitting a critic to its targets: the value half of the rules that learn it apart from the policy."""

from functools import partial

import torch
from torch import Tensor

from pgx.ops.losses import value_loss
from pgx.types import Batch, Critic, Optimizer


def fit_critic(
    critic: Critic,
    batch: Batch,
    optimizer: Optimizer,
    epochs: int,
    minibatch_size: int,
    generator: torch.Generator,
) -> float:
    """Regress the critic on the batch's value targets, in shuffled minibatches.

    Args:
        critic: stepped in place.
        batch: B rows.
        optimizer: over the critic's parameters.
        epochs: passes over the batch.
        minibatch_size: rows a step.
        generator: the stream that shuffles are drawn from.

    Returns:
        Mean loss over the last epoch; NaN without epochs.
    """
    losses: list[Tensor] = []
    for _ in range(epochs):
        losses = [
            optimizer.descend(partial(_loss, critic, rows))
            for rows in batch.minibatches(minibatch_size, generator)
        ]
    return float(torch.stack(losses).mean()) if losses else float("nan")


def _loss(critic: Critic, rows: Batch) -> Tensor:
    return value_loss(critic(rows.obs), rows.value_target)


def minibatch_conflicts(rollout_steps: int, num_envs: int, minibatch_size: int, key: str) -> list[str]:
    """One line with the arithmetic where a rollout does not divide into minibatches; else nothing."""
    batch = rollout_steps * num_envs
    if minibatch_size <= batch and batch % minibatch_size == 0:
        return []
    return [
        f"{key}: the batch, runner.rollout_steps {rollout_steps} x env.num_envs {num_envs} = {batch} rows, does "
        f"not divide into minibatches of {minibatch_size} ({batch} / {minibatch_size} = {batch / minibatch_size:.4g})"
    ]
