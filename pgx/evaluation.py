"""Playing whole episodes with an agent that no longer changes, and what there is to tell of episodes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pgx.envs.vector import VectorEnv, step
from pgx.metrics import part_key
from pgx.runners import Episode
from pgx.runners.tally import Tally
from pgx.types import Act, Agent, Metrics, Observations


def play(
    agent: Agent,
    act: Callable[[Observations], Act],
    envs: VectorEnv,
    episodes: int,
    seed: int,
    device: torch.device,
) -> list[Episode]:
    """Episodes from freshly seeded environments.

    Environment i plays its share of the episodes, ceil or floor of episodes / N, however long they last: taking
    whichever episodes end first would favour the short ones.

    Args:
        agent: who plays.
        act: how it takes its actions: its act_greedily, or its act with a stream.
        envs: N environments; more than `episodes` of them would be left unused.
        episodes: how many, >= 1.
        seed: environment i is seeded with seed + i.
        device: where the networks are.

    Returns:
        The episodes in the order in which they ended.
    """
    n = envs.num_envs
    left = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    tally = Tally(n)
    memory = agent.blank_memory(n, device)
    obs = envs.reset(seed)
    played: list[Episode] = []
    while left.any():
        mask = None if envs.action_mask is None else torch.from_numpy(envs.action_mask).to(device)
        time = torch.from_numpy(tally.length).to(device)
        seen = agent.observe(torch.from_numpy(obs).to(device), time, mask, memory)
        _, executed, _, memory = act(seen)
        if memory is not None:  # an episode that begins with the next step remembers nothing
            memory = memory.masked_fill(torch.from_numpy(tally.resetting).to(device).unsqueeze(-1), 0.0)
        took = step(envs, executed.cpu().numpy())
        tally.count(took)
        for i, episode in tally.add(took, envs.success):
            if left[i] > 0:
                played.append(episode)
                left[i] -= 1
        obs = took.obs
    return played


def episode_metrics(episodes: Sequence[Episode], recent: Sequence[float]) -> Metrics:
    """What training tells of the episodes that ended since it last did, and of the returns of recent ones."""
    metrics = {"episodes": float(len(episodes))}
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
    return said | {
        "eval_episode_return": float(np.mean(returns)),
        "eval_episode_return_std": float(np.std(returns)),
        "eval_episode_length": float(np.mean([e.length for e in episodes])),
    }


def success_rate(episodes: Sequence[Episode]) -> float | None:
    """The share of the episodes that say whether their task was done in which it was; None: none says so."""
    said = [e.success for e in episodes if e.success is not None]
    return sum(said) / len(said) if said else None
