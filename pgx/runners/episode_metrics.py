"""What finished episodes come to, by the keys of pgx.metrics."""

from collections.abc import Sequence

import numpy as np

from pgx.runners.types import Episode
from pgx.types import Metrics


def episode_metrics(episodes: Sequence[Episode], recent: Sequence[float]) -> Metrics:
    """Of the episodes that ended since this was last asked, and of the last few returns of the run."""
    metrics = {"episodes": float(len(episodes))}
    if recent:
        metrics["episode_return_recent"] = float(np.mean(recent))
    for key, values in (
        ("episode_return", [e.episode_return for e in episodes]),
        ("episode_length", [float(e.length) for e in episodes]),
    ):
        if values:
            metrics |= {key: float(np.mean(values)), f"{key}_min": min(values), f"{key}_max": max(values)}
    return metrics


def evaluation_metrics(episodes: Sequence[Episode]) -> Metrics:
    """Of the episodes of an evaluation."""
    returns = [e.episode_return for e in episodes]
    return {
        "eval_episode_return": float(np.mean(returns)),
        "eval_episode_return_std": float(np.std(returns)),
        "eval_episode_length": float(np.mean([e.length for e in episodes])),
    }
