"""`pgx collect`: whole episodes of a trained agent's sampled actions, written as a dataset."""

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from pgx.command_lines import command, override
from pgx.commands.one_run import load_played
from pgx.config.build import load_agent, unshaped
from pgx.config.check import plain_values
from pgx.config.compose import compose
from pgx.datasets.trajectory import Trajectory, split
from pgx.datasets.write import write_dataset
from pgx.engines import Eager
from pgx.envs.gymnasium_backend import make_single
from pgx.errors import UserError
from pgx.metrics import shown
from pgx.runners.episodes import EpisodeRunner, episodes
from pgx.seeding import derive
from pgx.types import Agent

PATIENCE = 10.0  # seconds between lines of progress where output is no terminal
REDRAW = 0.2  # seconds between drawings of the line where it is one


def collect(run: str, checkpoint: str, count: int, out: str, seed: int, trust: bool) -> int:
    """Play and write; returns the exit code."""
    cfg = load_played(Path(run), trust)
    if cfg.policy.get("continuous") == "squashed_gaussian":
        raise UserError(
            f"{run}: policy.continuous=squashed_gaussian: datasets have actions as the environment has them, where one "
            "at a bound no longer tells what was sampled; runs with policy.continuous=gaussian can be collected from"
        )
    # A dataset is of the task, whatever the run was paid for.
    agent, envs, device = load_agent(unshaped(cfg), Path(run), checkpoint, max_envs=count)
    # Not the streams of a run of this seed: an agent is not to meet again the starts that it was trained on.
    stream = derive(seed, "collection")
    runner = episodes(envs, None, stream, torch.device(device), Eager(), episodes_per_env=1)
    single = make_single(envs.id, dict(cfg.env.kwargs))
    try:
        written = write_dataset(
            Path(out),
            _told(_play(runner, agent, count), count),
            single.observation_space,
            single.action_space,
            _metadata(cfg, checkpoint, seed, single.spec),
        )
    finally:
        single.close()
        runner.close()
    print(
        f"{out}: {written.episodes:,} episodes, {written.steps:,} steps, mean return {shown(written.mean_return)}, "
        f"of {run}, checkpoint {checkpoint}"
    )
    print(f"  learn from it  {_learning(cfg, out, written.episodes)}")
    return 0


def _learning(cfg: DictConfig, out: str, episodes: int) -> str:
    """Return a command that learns from the dataset: on the same environment, from no more episodes than it has."""
    chosen = ["algo=off_policy_reinforce", override("env", cfg.env.id)]
    kwargs = plain_values(cfg)["env"]["kwargs"]
    chosen += [override(f"env.kwargs.{key}", value) for key, value in kwargs.items()]
    usual = compose(["algo=off_policy_reinforce"])
    if episodes < usual.runner.episodes:
        chosen.append(override("runner.episodes", episodes))
    return command("train", *chosen, override("dataset", out))


def _play(runner: EpisodeRunner, agent: Agent, count: int) -> Iterator[Trajectory]:
    """So many episodes, one of each environment in every round.

    Of a last round with more than are needed it is the first environments' that count, however long they last:
    taking whichever end first would favour the short ones.
    """
    left = count
    while left > 0:
        played = split(runner.collect(agent))[:left]
        runner.episodes.clear()
        left -= len(played)
        yield from played


def _told(played: Iterator[Trajectory], count: int) -> Iterator[Trajectory]:
    """The same episodes; progress goes to stderr: one line redrawn on a terminal, a line now and then elsewhere."""
    started = time.monotonic()
    live, said, drawn, steps = sys.stderr.isatty(), started, False, 0
    for number, episode in enumerate(played, start=1):
        yield episode
        steps += len(episode)
        now = time.monotonic()
        if now - said >= (REDRAW if live else PATIENCE):
            eta = timedelta(seconds=round((now - started) / number * (count - number)))
            line = f"{number:,}/{count:,} episodes  {steps / (now - started):,.0f} steps/s  eta {eta}"
            print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)
            said, drawn = now, live
    if drawn:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _metadata(cfg: DictConfig, checkpoint: str, seed: int, spec: Any) -> dict[str, Any]:
    """What Minari's metadata.json says of where the episodes are from."""
    said = {
        "algorithm_name": str(cfg.algo.name),
        "description": (
            f"Sampled actions of a pgx run on {cfg.env.id} (run seed {cfg.seed}, checkpoint {checkpoint}, collection "
            f"seed {seed}); infos/log_prob: log mu(a|s), nats, of actions as sampled, before clipping to their bounds."
        ),
    }
    try:
        return said | {"env_spec": spec.to_json()}
    except (
        AttributeError,
        TypeError,
        ValueError,
    ):  # e.g. an environment of a module's own class, which has no JSON
        return said
