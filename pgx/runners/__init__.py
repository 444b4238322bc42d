"""Where rollouts come from, by name: what `runner=` chooses from."""

from collections.abc import Callable

from pgx.runners.a3c import A3C, a3c
from pgx.runners.actor_learner import actor_learner
from pgx.runners.dataset import dataset
from pgx.runners.episodes import episodes
from pgx.runners.sync import sync
from pgx.runners.types import Episode, Runner

RUNNERS: dict[str, Callable[..., Runner | A3C]] = {
    "a3c": a3c,
    "actor_learner": actor_learner,
    "dataset": dataset,
    "episodes": episodes,
    "sync": sync,
}

__all__ = ["A3C", "RUNNERS", "Episode", "Runner"]
