"""Fitting a critic to its targets: the value half of the rules that learn it apart from the policy."""

from dataclasses import replace

from torch import Tensor

from pgx.ops.losses import value_loss
from pgx.types import Batch, Critic, Learner, Metrics, Setting


def fit_critic(batch: Batch, learner: Learner, epochs: int, minibatch_size: int) -> Metrics:
    """Regress the critic on the batch's value targets, in shuffled minibatches.

    Args:
        batch: B rows.
        learner: its critic_optimizer steps the critic, its generator shuffles.
        epochs: passes over the batch.
        minibatch_size: rows a step.

    Returns:
        critic_loss: mean over the last epoch; NaN without epochs.
    """
    # A critic reads no history, so its minibatches need not keep that of their rows together.
    batch = replace(batch, obs=replace(batch.obs, history=None))
    losses = batch.value.new_full((1,), float("nan"))
    for _ in range(epochs):
        minibatches = batch.minibatches(minibatch_size, learner.generator)
        losses = learner.critic_optimizer.sweep(critic_loss, (batch,), minibatches)
    return {"critic_loss": float(losses.mean())}


def critic_loss(critic: Critic, rows: Batch) -> Tensor:
    """Half the mean squared error of the critic on the rows' value targets; scalar."""
    return value_loss(critic(rows.obs), rows.value_target)


def minibatch_conflicts(setting: Setting, minibatch_size: int, key: str) -> list[str]:
    """One line with the arithmetic where a rollout does not divide into minibatches; else nothing.

    How many rows whole episodes have is not known beforehand; they are cut into parts that differ by one row at most.
    Under a policy with memory it is whole stretches that minibatches are made of.
    """
    length = setting.sequence_length
    if length is not None and minibatch_size % length:
        return [
            f"{key}: under a policy with memory a minibatch is made of whole stretches of policy.sequence_length "
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
    """The same for `fit_critic`, whose rows need no history."""
    return minibatch_conflicts(
        replace(setting, sequence_length=None), minibatch_size, "algo.critic_minibatch_size"
    )


def lone_row_conflicts(
    setting: Setting, normalize: bool | str, minibatch_size: int | None = None
) -> list[str]:
    """Return one line where advantages are normalised over a single row, A - mean A = 0, so that nothing is learned.

    Args:
        setting: gives the rows of a batch; whole episodes have an unknown number of rows and are not checked.
        normalize: algo.normalize_advantage: false or "off", true or "batch" (over the batch), or "minibatch".
        minibatch_size: rows of a minibatch, read for "minibatch".
    """
    written = str(normalize).lower()
    if written in ("false", "off"):
        return []
    if written == "minibatch":
        rows, source, larger = minibatch_size, "algo.minibatch_size 1", "algo.minibatch_size"
        smaller = "algo.normalize_advantage=batch"
    else:
        steps = setting.rollout_steps
        rows = None if steps is None else steps * setting.num_envs
        source, larger = "runner.rollout_steps 1 x env.num_envs 1", "runner.rollout_steps or env.num_envs"
        smaller = f"algo.normalize_advantage={'false' if written == 'true' else 'off'}"
    if rows != 1:
        return []
    return [
        f"algo.normalize_advantage={written}: {source} = 1 row, whose normalised advantage is A - mean A = 0, so "
        f"nothing would be learned; set {larger} to 2 or more, or {smaller}"
    ]
