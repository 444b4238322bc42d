"""Record minibatch steps of SB3's PPO, which pgx can repeat. It needs an environment with SB3."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from .sb3_models import environments, model

ROWS, MINIBATCH, STEPS = 320, 64, 20  # in four epochs, ratios leave 1 and some the clip range


def write(path: Path, env_id: str, threads: int, seed: int) -> dict[str, object]:
    """Collect one rollout and take the steps with SB3's `train`, one call per minibatch.

    The file contains the initial weights, the rows of the rollout, the rows of each step, and SB3's two losses before
    each step.
    """
    envs = environments(env_id, "dummy", 8, threads, seed)
    ppo = model(
        "ppo",
        envs,
        ROWS,
        MINIBATCH,
        seed,
        normalize_advantage=False,
        max_grad_norm=float("inf"),
        ent_coef=0.0,
    )
    ppo.n_epochs = 1
    dumped: dict[str, Any] = _weights(ppo.policy)
    _, callback = ppo._setup_learn(ROWS)
    ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, n_rollout_steps=ppo.n_steps)
    rows: RolloutBufferSamples = next(iter(ppo.rollout_buffer.get(None)))

    rng = np.random.default_rng(seed)
    order = np.concatenate(
        [rng.permutation(ROWS).reshape(-1, MINIBATCH) for _ in range(STEPS * MINIBATCH // ROWS)]
    )
    losses = []
    for index in order:
        ppo.rollout_buffer.get = _only(rows, index)
        ppo.train()
        logged = ppo.logger.name_to_value
        losses.append([logged["train/policy_gradient_loss"], logged["train/value_loss"]])
    dumped |= {
        "obs": rows.observations.float().numpy(),  # as SB3's networks see them
        "action": rows.actions.numpy(),
        "log_prob": rows.old_log_prob.numpy(),
        "advantage": rows.advantages.numpy(),
        "target": rows.returns.numpy(),
        "minibatches": order,
        "policy_loss": np.array(losses)[:, 0],
        "value_loss": np.array(losses)[:, 1],
    }
    np.savez(path, **dumped)
    return {"steps": len(order), "clip_fraction": float(logged["train/clip_fraction"])}


def _only(rows: RolloutBufferSamples, index: Any) -> Any:
    """Return a rollout buffer's `get` that yields one minibatch with these rows."""

    def get(batch_size: int | None = None) -> Iterator[RolloutBufferSamples]:
        yield RolloutBufferSamples(*(column[index] for column in rows))

    return get


def _weights(policy: Any) -> dict[str, Any]:
    def linear(*parts: torch.nn.Module) -> list[torch.nn.Linear]:
        return [m for part in parts for m in part.modules() if isinstance(m, torch.nn.Linear)]

    networks = {
        "policy": linear(policy.mlp_extractor.policy_net, policy.action_net),
        "value": linear(policy.mlp_extractor.value_net, policy.value_net),
    }
    found = {"log_std": policy.log_std.detach().numpy().copy()}
    for prefix, layers in networks.items():
        for i, layer in enumerate(layers):
            found[f"{prefix}_weight_{i}"] = layer.weight.detach().numpy().copy()
            found[f"{prefix}_bias_{i}"] = layer.bias.detach().numpy().copy()
    return found
