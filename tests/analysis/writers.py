"""Writers of TensorBoard files with the tags, folders and texts of other libraries, using torch's writer."""

import time
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

LOSS = 8.0  # mean squared error, where pgx has half of it


def stable_baselines3(folder: Path, returns: np.ndarray, every: int = 1000) -> None:
    """Write a PPO run, whose logger writes after each rollout."""
    with SummaryWriter(str(folder)) as writer:
        for i, earned in enumerate(returns, start=1):
            step = i * every
            writer.add_scalar("rollout/ep_rew_mean", earned, step)
            writer.add_scalar("rollout/ep_len_mean", 100.0, step)
            writer.add_scalar("time/fps", 500, step)
            if i > 1:
                writer.add_scalar("train/approx_kl", 0.01, step)
                writer.add_scalar("train/clip_fraction", 0.1, step)
                writer.add_scalar("train/explained_variance", 0.5, step)
                writer.add_scalar("train/entropy_loss", -1.5, step)
                writer.add_scalar("train/value_loss", LOSS, step)
                writer.add_scalar("train/std", 0.9, step)


def cleanrl(folder: Path, returns: np.ndarray, env: str, seed: int, every: int = 100) -> None:
    """Write a ppo_continuous_action run: episodes as they end, losses after each update, evaluation at the end."""
    with SummaryWriter(str(folder)) as writer:
        said = {"exp_name": "ppo_continuous_action", "env_id": env, "seed": seed, "learning_rate": 0.0003}
        table = "|param|value|\n|-|-|\n" + "\n".join(f"|{key}|{value}|" for key, value in said.items())
        writer.add_text("hyperparameters", table)
        for i, earned in enumerate(returns, start=1):
            writer.add_scalar("charts/episodic_return", earned, i * every)
            writer.add_scalar("charts/episodic_length", 100, i * every)
            if i % 5 == 0:
                writer.add_scalar("losses/approx_kl", 0.02, i * every)
                writer.add_scalar("losses/clipfrac", 0.2, i * every)
                writer.add_scalar("losses/explained_variance", 0.4, i * every)
                writer.add_scalar("losses/entropy", 1.2, i * every)
                writer.add_scalar("charts/SPS", 700, i * every)
        for episode in range(3):
            writer.add_scalar("eval/episodic_return", 1.0, episode)


def tianshou(folder: Path, returns: np.ndarray, training: str = "training", every: int = 1000) -> None:
    """Write an on-policy run: collections and tests over environment steps, updates over the number of updates."""
    clock = time.time()
    with SummaryWriter(str(folder)) as writer:
        for i, earned in enumerate(returns, start=1):
            step, clock = i * every, clock + 2.0
            for name, value in {
                "env_step": float(step),
                "returns_stat/mean": float(earned),
                "lens_stat/mean": 100.0,
                "n_collected_episodes": 10.0,
            }.items():
                writer.add_scalar(f"{training}/{name}", value, step, walltime=clock)
            writer.add_scalar("test/returns_stat/mean", float(earned) + 1, step, walltime=clock + 1)
            writer.add_scalar("update/update_step", float(i), i, walltime=clock + 0.5)
            writer.add_scalar("update/kl/mean", 0.001 * i, i, walltime=clock + 0.5)
