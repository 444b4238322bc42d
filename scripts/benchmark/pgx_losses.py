"""Repeat the minibatch steps of SB3 with the losses and optimizers of pgx. It imports torch and pgx."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pgx.core.data import Batch
    from pgx.training.trainer import Trainer

OVERRIDES = (
    "algo=ppo",
    "algo.normalize_advantage=off",
    "optimizer.max_grad_norm=null",
    "critic_optimizer.max_grad_norm=null",
    "logger.console=off",
)


def steps(trainer: Trainer, batch: Batch, minibatches: list[Any]) -> tuple[Any, Any]:
    """Take a step of policy and critic for each minibatch; return their losses before the steps, [steps] each."""
    import torch

    index = [torch.from_numpy(minibatch) for minibatch in minibatches]
    learner = trainer.learner
    rule: Any = trainer.algorithm  # PPO, whose losses are private
    policy = learner.optimizer.step_minibatches(rule._policy_loss, (batch,), index)
    value = learner.critic_optimizer.step_minibatches(rule._critic_loss, (batch,), index)
    # Policy and critic share no parameters, so the order of their steps does not matter.
    return policy.numpy(), value.numpy()


def differences(path: Path, env: str) -> dict[str, dict[str, float]]:
    """Return the largest differences of the policy and critic losses over the steps of a file.

    They are relative to SB3's loss at the same step, and to the mean size of the losses: rounding errors are large
    relative to a policy loss that is nearly 0.

    Args:
        path: written by `scripts/bench_sb3.py losses`.
        env: id of the environment.
    """
    from pgx.config.compose import compose
    from pgx.config.validate import validate
    from pgx.training.build import build

    dumped = dict(np.load(path))
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(validate(compose([*OVERRIDES, f"env={env}", f"run_dir={folder}/run"])))
        _load(trainer.agent.policy, dumped, "policy")
        _load(trainer.agent.critic, dumped, "value")
        trainer.learner.anneal(0.0)
        policy, value = steps(trainer, _batch(dumped), list(dumped["minibatches"]))
        trainer.runner.close()
    return {
        "policy": _largest(policy, dumped["policy_loss"]),
        # SB3's is the mean squared error, and its coefficient 0.5; pgx's loss has the half in it.
        "value": _largest(2 * value, dumped["value_loss"]),
    }


def _largest(ours: Any, theirs: Any) -> dict[str, float]:
    difference, size = np.abs(ours - theirs), np.abs(theirs)
    return {
        "relative": float((difference / size).max()),
        "of mean size": float(difference.max() / size.mean()),
    }


def _load(network: Any, dumped: dict[str, Any], prefix: str) -> None:
    """Load SB3's weights into a perceptron, layer by layer."""
    import torch

    layers = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(torch.from_numpy(dumped[f"{prefix}_weight_{i}"]))
            layer.bias.copy_(torch.from_numpy(dumped[f"{prefix}_bias_{i}"]))
        if prefix == "policy":
            network.log_std.copy_(torch.from_numpy(dumped["log_std"]))


def _batch(dumped: dict[str, Any]) -> Batch:
    import torch

    from pgx.core.data import Batch, Observations

    column = {
        key: torch.from_numpy(dumped[key]) for key in ("obs", "action", "log_prob", "advantage", "target")
    }
    return Batch(
        obs=Observations(column["obs"], torch.zeros(len(column["obs"]), dtype=torch.int64)),
        action=column["action"],
        log_prob=column["log_prob"],
        value=column["target"] - column["advantage"],
        advantage=column["advantage"],
        value_target=column["target"],
    )
