"""`pgx eval`: whole episodes with trained agents, their normalisers frozen."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pgx.cli.arguments import (
    Command,
    add_checkpoint,
    add_max_steps,
    add_sampling,
    count,
    split_overrides,
)
from pgx.core.errors import UserError
from pgx.core.formatting import shown

if TYPE_CHECKING:
    from pgx.analysis.statistics import Array, Resampling, Statistic
    from pgx.config.run_config import RunConfig
    from pgx.core.agent import Act, Agent
    from pgx.core.data import Observations
    from pgx.rollouts.types import Episode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        metavar="RUN",
        nargs="+",
        help="a run's folder, e.g. outputs/Walker2d-v4/trpo/2026-...; KEY=VALUE changes where environments run, "
        "e.g. env.backend=gymnasium",
    )
    parser.add_argument("--episodes", type=count, help="how many (the run's trainer.eval_episodes)")
    add_max_steps(parser)
    how = parser.add_mutually_exclusive_group()
    add_sampling(how)
    how.add_argument("--both", action="store_true", help="the one and the other, from the same starts")
    parser.add_argument("--json", action="store_true", help="one record for each run, every return in it")
    add_checkpoint(parser, "the environments and of sampling")


def run(options: argparse.Namespace) -> int:
    modes: list[Mode] = ["stochastic"] if options.stochastic else ["deterministic"]
    if options.both:
        modes = ["deterministic", "stochastic"]
    runs, overrides = split_overrides(options.words)
    return evaluate(
        runs,
        overrides,
        options.checkpoint,
        options.episodes,
        options.max_steps,
        modes,
        options.seed,
        options.trust,
        options.json,
    )


COMMAND = Command(
    "eval", "play episodes with trained runs", "Play episodes with trained runs.", add_arguments, run
)


Mode = Literal["deterministic", "stochastic"]
EPISODES_DRAWN = 5_000  # resamples: the ends of an interval then vary by some hundredths of its width
LEVEL = 0.95  # of intervals
Judged = dict[str, Any]  # of one run in one mode: a record of --json
OWN: Judged = {"unshaped_mean": None, "unshaped_mean_interval": None}  # where no other reward was paid


def evaluate(
    runs: Sequence[str],
    overrides: Sequence[str],
    checkpoint: str,
    episodes: int | None,
    max_steps: int | None,
    modes: Sequence[Mode],
    seed: int,
    trust: bool,
    as_json: bool,
) -> int:
    """Play and print; returns the exit code.

    Args:
        runs: their folders.
        overrides: of what may differ from each run's config (pgx/config/changes.py).
        checkpoint: of each run.
        episodes: of each run and mode; None: the run's trainer.eval_episodes.
        max_steps: of an episode; None: the run's trainer.eval_max_steps.
        modes: of choosing actions.
        seed: of the environments and of sampling.
        trust: the user allows what the runs' configs would import.
        as_json: print records instead of text.
    """
    from pgx.config.run_config import with_values
    from pgx.runs.loggers.jsonl import finite

    records: list[Judged] = []
    for run, cfg in zip(runs, _configs(runs, overrides, trust), strict=True):
        if max_steps is not None:
            cfg = with_values(cfg, {"trainer.eval_max_steps": max_steps})
        for judged in _judge(run, cfg, checkpoint, episodes, modes, seed):
            records.append(judged)
            if not as_json:
                _tell(judged)
    if as_json:
        print(json.dumps([finite(judged) for judged in records], indent=2, allow_nan=False))
    return 0


def _configs(runs: Sequence[str], overrides: Sequence[str], trust: bool) -> list[RunConfig]:
    """Return those of all runs, before any is played.

    Raises:
        UserError: what is wrong with each of them.
    """
    from pgx.cli.run_folder import load_played

    configs, problems = [], list[str]()
    for run in runs:
        try:
            configs.append(load_played(Path(run), trust, overrides))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return configs


def _judge(
    run: str, cfg: RunConfig, checkpoint: str, episodes: int | None, modes: Sequence[Mode], seed: int
) -> list[Judged]:
    """Play one run in each mode, from the same starts."""
    import torch

    from pgx.core.seeding import derive
    from pgx.training.build import load_agent
    from pgx.training.evaluation import live_progress, never, play

    count = episodes or cfg.trainer.eval_episodes
    agent, envs, device = load_agent(cfg, Path(run), checkpoint, max_envs=count)
    judged = []
    try:
        for mode in modes:
            started = time.monotonic()
            act = _acting(agent, mode, seed, device)
            with live_progress(count) as on_step:
                start = derive(seed, "evaluation")
                limit = cfg.trainer.eval_max_steps
                played = play(agent, act, envs, count, start, torch.device(device), limit, never, on_step)
            speed = sum(episode.length for episode in played) / (time.monotonic() - started)
            print(f"{run}: {len(played)} {mode} episodes, {speed:,.0f} steps/s", file=sys.stderr)
            where = {"run": run, "checkpoint": checkpoint, "env": envs.id, "backend": envs.backend}
            judged.append({**where, "mode": mode, "seed": seed, **_judgement(played, seed)})
    finally:
        envs.close()
    return judged


def _acting(agent: Agent, mode: Mode, seed: int, device: str) -> Callable[[Observations], Act]:
    from pgx.core.seeding import generator

    if mode == "deterministic":
        return agent.act_greedily
    return partial(agent.act, generator=generator(seed, "evaluation actions", device))


def _judgement(played: Sequence[Episode], seed: int) -> Judged:
    """What the episodes say: of those that were played, and with intervals of those that might have been."""
    import numpy as np

    from pgx.analysis.statistics import Resampling, iqm, mean
    from pgx.core.seeding import derive
    from pgx.training.evaluation import success_rate

    returns = np.array([episode.episode_return for episode in played])
    lengths = [episode.length for episode in played]
    unshaped = [e.unshaped_return for e in played if e.unshaped_return is not None]
    how = Resampling(EPISODES_DRAWN, LEVEL, derive(seed, "evaluation intervals"))
    return {
        "episodes": len(played),
        **_estimated("mean", returns, mean, how),
        **_estimated("iqm", returns, iqm, how),
        "std": float(np.std(returns)),
        **(_estimated("unshaped_mean", np.array(unshaped), mean, how) if unshaped else OWN),
        "success_rate": success_rate(played),
        "mean_length": float(np.mean(lengths)),
        "returns": returns.tolist(),
        "unshaped_returns": unshaped or None,
        "lengths": lengths,
        "successes": [episode.success for episode in played],
        "cut": [episode.cut for episode in played],
    }


def _estimated(name: str, returns: Array, statistic: Statistic, how: Resampling) -> Judged:
    """A statistic and its interval, None without returns; of one episode there is nothing to resample."""
    from pgx.analysis.statistics import estimate

    if not len(returns):
        return {name: None, f"{name}_interval": None}
    found = estimate([returns], statistic, how)
    ends = None if found.low is None or found.high is None else (found.low, found.high)
    return {name: found.value, f"{name}_interval": ends}


def _tell(judged: Judged) -> None:
    """A judgement, for people."""
    returns, lengths = judged["returns"], judged["lengths"]
    print(
        f"{judged['run']}, checkpoint {judged['checkpoint']}: {judged['episodes']} {judged['mode']} episodes "
        f"on {judged['env']} ({judged['backend']})"
    )
    print(
        f"  return  {shown(judged['mean'])} +- {shown(judged['std'])}   min {shown(min(returns))}  "
        f"max {shown(max(returns))}"
    )
    print(f"  mean    {shown(judged['mean'])}{_bounds(judged['mean_interval'])}")
    print(f"  IQM     {shown(judged['iqm'])}{_bounds(judged['iqm_interval'])}")
    if judged["unshaped_mean"] is not None:
        own = f"{shown(judged['unshaped_mean'])}{_bounds(judged['unshaped_mean_interval'])}"
        print(f"  mean in the environment's own reward  {own}")
    if judged["success_rate"] is not None:
        print(f"  success {judged['success_rate']:.1%}")
    print(f"  length  {judged['mean_length']:,.1f}   min {min(lengths)}  max {max(lengths)}")
    if cut := sum(judged["cut"]):
        print(
            f"  cut     {cut} of {len(lengths)} episodes had not ended after {max(lengths):,} steps (--max-steps)"
        )


def _bounds(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"   95% interval {shown(ends[0])} to {shown(ends[1])}"
