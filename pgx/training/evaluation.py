"""Evaluation: whole episodes of a fixed agent, metrics of episodes, and progress on the error stream."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
from numpy.typing import NDArray

from pgx.core.agent import Act, Agent, Metrics
from pgx.core.data import Observations
from pgx.core.seeding import derive
from pgx.envs.vector import VectorEnv, step
from pgx.rollouts.collector import EpisodeStats
from pgx.rollouts.sources import Episode
from pgx.runs.metrics import part_key

# Receives the number of ended episodes and of environment steps so far.
ProgressCallback = Callable[[int, int], None]


def never_stop() -> bool:
    """Return False: do not stop."""
    return False


def ignore_progress(episodes: int, steps: int) -> None:
    """Ignore the progress of an evaluation."""


def play(
    agent: Agent,
    act: Callable[[Observations], Act],
    envs: VectorEnv,
    episodes: int,
    seed: int,
    device: torch.device,
    max_steps: int,
    should_stop: Callable[[], bool],
    on_step: ProgressCallback,
) -> list[Episode]:
    """Play episodes from freshly seeded environments.

    Environment i plays ceil or floor of episodes / N episodes: the first episodes that end would be biased towards
    short ones.

    An episode that has not ended after `max_steps` steps is cut. Environments cannot be reset one by one, so an
    environment with a cut episode is idle until the others have finished. Then all are reset for the remaining ones.

    Args:
        agent: agent that plays.
        act: selects actions: `agent.act_greedily`, or `agent.act` with a random stream.
        envs: N environments; with more than `episodes`, some are unused.
        episodes: number of episodes, >= 1.
        seed: environment i is seeded with seed + i.
        device: device of the networks.
        max_steps: largest length of an episode, >= 1.
        should_stop: called before each step; if it returns True, the episodes so far are returned.
        on_step: called after each step.

    Returns:
        The episodes in the order in which they ended.
    """
    n = envs.num_envs
    left = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    played: list[Episode] = []
    steps, rounds = 0, 0
    while True:
        round_seed = seed if rounds == 0 else derive(seed, "evaluation round", rounds)
        rounds += 1
        for ended in _round(agent, act, envs, left, round_seed, device, max_steps, should_stop):
            steps += n
            played += ended
            on_step(len(played), steps)
        if not left.any() or should_stop():
            return played


def _round(
    agent: Agent,
    act: Callable[[Observations], Act],
    envs: VectorEnv,
    left: NDArray[np.int64],
    seed: int,
    device: torch.device,
    max_steps: int,
    should_stop: Callable[[], bool],
) -> Iterator[list[Episode]]:
    """Yield the episodes that end with each step, until each environment has played its number or has one cut.

    Args:
        left: [N] remaining episodes of each environment; decreased in place.
        seed: seed of environment 0.
    """
    n = envs.num_envs
    tally = EpisodeStats(n)
    waits = np.zeros(n, dtype=bool)  # True: idle until the next round
    recurrent_state = agent.initial_recurrent_state(n, device)
    obs = envs.reset(seed)
    while ((left > 0) & ~waits).any() and not should_stop():
        mask = None if envs.action_mask is None else torch.from_numpy(envs.action_mask).to(device)
        time = torch.from_numpy(tally.length).to(device)
        seen = agent.observe(torch.from_numpy(obs).to(device), time, mask, recurrent_state)
        _, executed, _, recurrent_state = act(seen)
        if recurrent_state is not None:  # a new episode starts from zeros
            resetting = torch.from_numpy(tally.resetting).to(device).unsqueeze(-1)
            recurrent_state = recurrent_state.masked_fill(resetting, 0.0)
        took = step(envs, executed.cpu().numpy())
        tally.count(took)
        ended = tally.add(took, envs.success)
        too_long = np.flatnonzero((tally.length >= max_steps) & ~waits).tolist()
        ended += [(i, tally.cut(i, envs.success)) for i in too_long]
        counted = [(i, episode) for i, episode in ended if left[i] > 0 and not waits[i]]
        for i, _ in counted:
            left[i] -= 1
        waits[too_long] = True
        obs = took.obs
        yield [episode for _, episode in counted]


def episode_metrics(episodes: Sequence[Episode], recent: Sequence[float]) -> Metrics:
    """Compute training metrics of the episodes since the last log, and the mean of recent returns."""
    metrics = {"episodes": float(len(episodes))}
    if cut := sum(e.cut for e in episodes):
        metrics["episodes_cut"] = float(cut)
    if recent:
        metrics["episode_return_recent"] = float(np.mean(recent))
    for key, values in (
        ("episode_return", [e.episode_return for e in episodes]),
        ("episode_length", [float(e.length) for e in episodes]),
    ):
        if values:
            metrics |= {key: float(np.mean(values)), f"{key}_min": min(values), f"{key}_max": max(values)}
    return metrics | shaping_metrics(episodes)


def shaping_metrics(episodes: Sequence[Episode]) -> Metrics:
    """Compute the means of the unshaped return and of each reward term.

    The result is empty without episodes or without a shaped reward.
    """
    shaped = [episode for episode in episodes if episode.parts is not None]
    if not shaped:
        return {}
    metrics = {"unshaped_return": float(np.mean([e.unshaped_return for e in shaped]))}
    for name in shaped[0].parts or {}:
        metrics[part_key(name)] = float(np.mean([(e.parts or {})[name] for e in shaped]))
    return metrics


def evaluation_metrics(episodes: Sequence[Episode]) -> Metrics:
    """Compute the metrics of an evaluation."""
    returns = [e.episode_return for e in episodes]
    rate = success_rate(episodes)
    unshaped = [e.unshaped_return for e in episodes if e.unshaped_return is not None]
    said = {} if rate is None else {"eval_success": rate}
    if unshaped:
        said["eval_unshaped_return"] = float(np.mean(unshaped))
    if cut := sum(e.cut for e in episodes):
        said["eval_episodes_cut"] = float(cut)
    return said | {
        "eval_episode_return": float(np.mean(returns)),
        "eval_episode_return_std": float(np.std(returns)),
        "eval_episode_length": float(np.mean([e.length for e in episodes])),
    }


def success_rate(episodes: Sequence[Episode]) -> float | None:
    """Return the fraction of successful episodes among those that report success; None if none reports it."""
    said = [e.success for e in episodes if e.success is not None]
    return sum(said) / len(said) if said else None


PROGRESS_INTERVAL = 10.0  # seconds between lines if the error stream is not a terminal
REDRAW_INTERVAL = 0.2  # seconds between updates of the line on a terminal


@contextmanager
def show_progress(episodes: int) -> Iterator[ProgressCallback]:
    """Show progress: one updated line on a terminal, otherwise a line every 10 seconds.

    Args:
        episodes: number of episodes to play.

    Yields:
        Callback for each step.
    """
    if not sys.stderr.isatty():
        yield print_progress("", episodes, PROGRESS_INTERVAL)
        return
    drawn = False

    def draw(line: str) -> None:
        nonlocal drawn
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        drawn = True

    try:
        yield _progress("", episodes, REDRAW_INTERVAL, draw)
    finally:
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def print_progress(prefix: str, episodes: int, interval: float) -> ProgressCallback:
    """Return a callback that prints a line of progress every `interval` seconds, the first after `interval`."""
    return _progress(prefix, episodes, interval, _print)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _progress(prefix: str, episodes: int, interval: float, write: Callable[[str], None]) -> ProgressCallback:
    started = said = time.monotonic()

    def on_step(played: int, steps: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= interval:
            said = now
            seconds = now - started
            left = timedelta(seconds=round(seconds / played * (episodes - played))) if played else "-"
            count = f"{played:,}/{episodes:,} episodes  {steps:,} steps"
            write(f"{prefix}{count}  {steps / seconds:,.0f} steps/s  eta {left}")

    return on_step
