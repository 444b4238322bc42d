"""Rules reach a score on three seeds. Takes minutes."""

from pathlib import Path

import pytest

from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.core.paths import config_choices
from pgx.training.build import build
from tests.conftest import QUIET

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", sorted(set(config_choices("algo")) - {"off_policy_reinforce"}))
def test_cartpole_is_solved_within_100_000_steps(tmp_path: Path, name: str, seed: int) -> None:
    """Each rule with its default values reaches the task's threshold, a mean of 475 over 20 deterministic episodes."""
    overrides = [f"algo={name}", "env=CartPole-v1", "trainer.total_steps=100000", f"seed={seed}"]
    trainer = build(
        validate(compose([*QUIET, *overrides, "trainer.eval_episodes=20", f"run_dir={tmp_path}"]))
    )
    trainer.train()
    returns = [episode.episode_return for episode in trainer.evaluate(0)]
    assert sum(returns) / len(returns) >= 475
