"""Playing whole episodes with an agent that no longer changes, and what there is to tell of episodes.

Progress of episodes that are played, on the error stream.
"""

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

# Told the episodes that have ended and the environment steps that were taken so far.
ProgressCallback = Callable[[int, int], None]


def never_stop() -> bool:
    """Return false: nothing asks to stop."""
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

    Environment i plays its share of the episodes, ceil or floor of episodes / N, however long they last: taking
    whichever episodes end first would favour the short ones.

    An episode that has not ended after `max_steps` steps is cut. Environments cannot be reset one by one, so one whose
    episode was cut waits until the others have played their shares; then all are seeded anew for what is left.

    Args:
        agent: who plays.
        act: how it takes its actions: its act_greedily, or its act with a stream.
        envs: N environments; more than `episodes` of them would be left unused.
        episodes: how many, >= 1.
        seed: environment i is seeded with seed + i.
        device: where the networks are.
        max_steps: of an episode, >= 1.
        should_stop: asked before each step; once it returns true, the episodes so far are returned.
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
    """Yield the episodes that each step ended, until each environment has played its share or had an episode cut.

    Args:
        left: [N] episodes that each environment has left to play; counted down.
        seed: of environment 0.
    """
    n = envs.num_envs
    tally = EpisodeStats(n)
    waits = np.zeros(n, dtype=bool)  # for the next round
    recurrent_state = agent.initial_recurrent_state(n, device)
    obs = envs.reset(seed)
    while ((left > 0) & ~waits).any() and not should_stop():
        mask = None if envs.action_mask is None else torch.from_numpy(envs.action_mask).to(device)
        time = torch.from_numpy(tally.length).to(device)
        seen = agent.observe(torch.from_numpy(obs).to(device), time, mask, recurrent_state)
        _, executed, _, recurrent_state = act(seen)
        if recurrent_state is not None:  # an episode that begins with the next step starts from zeros
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
    """What training tells of the episodes that ended since it last did, and of the returns of recent ones."""
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
    """What the returns of episodes are made of, and what the environment's own would have been.

    Nothing where no episode ended, or none was paid anything but the environment's own reward.
    """
    shaped = [episode for episode in episodes if episode.parts is not None]
    if not shaped:
        return {}
    metrics = {"unshaped_return": float(np.mean([e.unshaped_return for e in shaped]))}
    for name in shaped[0].parts or {}:
        metrics[part_key(name)] = float(np.mean([(e.parts or {})[name] for e in shaped]))
    return metrics


def evaluation_metrics(episodes: Sequence[Episode]) -> Metrics:
    """What an evaluation tells of its episodes."""
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
    """The share of the episodes that say whether their task was done in which it was; None: none says so."""
    said = [e.success for e in episodes if e.success is not None]
    return sum(said) / len(said) if said else None


PROGRESS_INTERVAL = 10.0  # seconds between lines where the error stream is not a terminal
REDRAW_INTERVAL = 0.2  # seconds between drawings of the line where it is one


@contextmanager
def show_progress(episodes: int) -> Iterator[ProgressCallback]:
    """Show progress: one line that is redrawn on a terminal, elsewhere a line every 10 seconds.

    Args:
        episodes: that are to be played.

    Yields:
        What is told of each step.
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
    """Return what prints a line of progress every `interval` seconds; nothing for what is over before."""
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
