"""`pgx eval`: whole episodes with a trained agent, its normaliser frozen."""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pgx.commands.one_run import load_played
from pgx.config.build import load_agent
from pgx.evaluation import play
from pgx.metrics import shown
from pgx.seeding import derive, generator


def evaluate(
    run: str, checkpoint: str, episodes: int | None, stochastic: bool, seed: int, trust: bool
) -> int:
    """Play and print; returns the exit code."""
    cfg = load_played(Path(run), trust)
    episodes = episodes or int(cfg.trainer.eval_episodes)
    agent, envs, device = load_agent(cfg, Path(run), checkpoint, max_envs=episodes)
    sampling = generator(seed, "evaluation actions", device)

    started = time.monotonic()
    act = partial(agent.act, generator=sampling) if stochastic else agent.act_greedily
    played = play(agent, act, envs, episodes, derive(seed, "evaluation"), torch.device(device))
    envs.close()
    returns, lengths = [e.episode_return for e in played], [e.length for e in played]
    how = "stochastic" if stochastic else "deterministic"
    print(f"{run}, checkpoint {checkpoint}: {len(played)} {how} episodes on {envs.id} ({envs.backend})")
    mean, deviation = shown(float(np.mean(returns))), shown(float(np.std(returns)))
    print(f"  return  {mean} +- {deviation}   min {shown(min(returns))}  max {shown(max(returns))}")
    print(f"  length  {np.mean(lengths):,.1f}   min {min(lengths)}  max {max(lengths)}")
    print(f"  {sum(lengths) / (time.monotonic() - started):,.0f} steps/s", file=sys.stderr)
    return 0
