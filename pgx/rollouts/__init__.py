"""Where rollouts come from, by name: what `runner=` chooses from."""

from collections.abc import Callable

from pgx.rollouts.actor_learner import actor_learner
from pgx.rollouts.dataset import dataset
from pgx.rollouts.episodes import episodes
from pgx.rollouts.sync import sync
from pgx.rollouts.types import Episode, Runner
from pgx.training.a3c import A3C, a3c

RUNNERS: dict[str, Callable[..., Runner | A3C]] = {
    "a3c": a3c,
    "actor_learner": actor_learner,
    "dataset": dataset,
    "episodes": episodes,
    "sync": sync,
}

__all__ = ["A3C", "RUNNERS", "Episode", "Runner"]
