"""Regression of a critic on value targets, for rules with a separate critic."""

from dataclasses import replace

from torch import Tensor

from pgx.core.agent import Critic, Metrics
from pgx.core.algorithm import Learner, Setting
from pgx.core.data import Batch
from pgx.core.metrics import Metric
from pgx.ops.losses import value_loss

CRITIC_LOSS = Metric(
    "critic_loss", "value^2", "half the mean squared error of the critic, mean over the last epoch of its fit"
)


def fit_critic(batch: Batch, learner: Learner, epochs: int, minibatch_size: int) -> Metrics:
    """Regress the critic on the batch's value targets, in shuffled minibatches.

    Args:
        batch: B rows.
        learner: with the critic's optimizer and the random stream of shuffles.
        epochs: passes over the batch.
        minibatch_size: rows of a gradient step.

    Returns:
        critic_loss: mean over the last epoch; NaN without epochs.
    """
    # A critic does not use the history, so its minibatches need not keep sequences together.
    batch = replace(batch, obs=replace(batch.obs, history=None))
    losses = batch.value.new_full((1,), float("nan"))
    for _ in range(epochs):
        minibatches = batch.minibatches(minibatch_size, learner.generator)
        losses = learner.critic_optimizer.step_minibatches(critic_loss, (batch,), minibatches)
    return {"critic_loss": float(losses.mean())}


def critic_loss(critic: Critic, rows: Batch) -> Tensor:
    """Return half the mean squared error of the critic on the rows' value targets; scalar."""
    return value_loss(critic(rows.obs), rows.value_target)


def minibatch_conflicts(setting: Setting, minibatch_size: int, key: str) -> list[str]:
    """Return a message with the arithmetic if a rollout does not divide into minibatches.

    Whole episodes are never a conflict: their number of rows is unknown, and their minibatches differ by one row at
    most. With a recurrent policy, minibatches consist of whole sequences.

    Args:
        setting: values of the config.
        minibatch_size: rows.
        key: config key of minibatch_size.

    Returns:
        One message, or none.
    """
    length = setting.sequence_length
    if length is not None and minibatch_size % length:
        return [
            f"{key}: with a recurrent policy a minibatch consists of whole sequences of policy.sequence_length "
            f"{length} rows; expected a multiple of that, got {minibatch_size} ({minibatch_size} / {length} = "
            f"{minibatch_size / length:.4g})"
        ]
    if setting.rollout_steps is None:
        return []
    rollout_steps, num_envs = setting.rollout_steps, setting.num_envs
    batch = rollout_steps * num_envs
    if minibatch_size <= batch and batch % minibatch_size == 0:
        return []
    return [
        f"{key}: the batch, runner.rollout_steps {rollout_steps} x env.num_envs {num_envs} = {batch} rows, does "
        f"not divide into minibatches of {minibatch_size} ({batch} / {minibatch_size} = {batch / minibatch_size:.4g})"
    ]


def critic_minibatch_conflicts(setting: Setting, minibatch_size: int) -> list[str]:
    """Apply `minibatch_conflicts` to `fit_critic`, whose minibatches need no sequences."""
    return minibatch_conflicts(
        replace(setting, sequence_length=None), minibatch_size, "algo.critic_minibatch_size"
    )
