"""Building blocks that tests share: trainers from real configs, on real environments."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pgx.config import build, compose
from pgx.trainer import Trainer

torch.set_num_threads(1)

Make = Callable[..., Trainer]

QUIET = ["logger.console=off", "logger.tensorboard=false", "env.num_threads=1"]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A trainer from overrides, small and silent unless they say otherwise; runs go to tmp_path/<name>."""

    def trainer(*overrides: str, name: str = "run") -> Trainer:
        small = ["trainer.total_steps=512", "env.num_envs=4", "runner.rollout_steps=64"]
        return build(compose([*QUIET, *small, f"run_dir={tmp_path / name}", *overrides]))

    return trainer


def parameters(trainer: Trainer) -> torch.Tensor:
    """All parameters of policy and critic as one vector, a copy."""
    agent = trainer.agent
    return torch.cat(
        [p.detach().reshape(-1) for net in (agent.policy, agent.critic) for p in net.parameters()]
    )
