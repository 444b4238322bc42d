"""A policy learns a game from images. Takes a minute."""

from pathlib import Path

import pytest

from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.training.build import build
from tests.conftest import QUIET

pytestmark = pytest.mark.slow

OVERRIDES = [
    "algo=ppo",
    "algo.epochs=4",
    "algo.minibatch_size=128",
    "env=tests.environments:Catch-v0",
    "env.discount=0.95",
    "env.num_envs=8",
    "runner.rollout_steps=128",
    "policy=cnn",
    "critic=cnn",
    "policy.hidden=64",
    "critic.hidden=64",
    "optimizer.learning_rate=1e-3",
    "critic_optimizer.learning_rate=1e-3",
    "trainer.total_steps=10000",
    "trainer.eval_episodes=40",
]


def test_catch_is_learned_from_images_within_10_000_steps(tmp_path: Path) -> None:
    """The deterministic policy catches nine of ten balls (return 0.8); the initial policy catches few."""
    trainer = build(validate(compose([*QUIET, *OVERRIDES, f"run_dir={tmp_path}"])))

    def mean_return() -> float:
        returns = [episode.episode_return for episode in trainer.evaluate(0)]
        return sum(returns) / len(returns)

    assert mean_return() < 0.2
    trainer.train()
    assert mean_return() >= 0.8
