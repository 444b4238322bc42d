"""Python environment for scripts/bench_envs.py: a walker with a wrapper that changes the reward."""

from typing import Any

import gymnasium
import numpy as np


class Efficient(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Wrapper with reward: forward speed minus a multiple of the square root of the joints' work.

    Args:
        env: a walker.
        cost: factor of the square root.
    """

    def __init__(self, env: "gymnasium.Env[Any, Any]", cost: float) -> None:
        super().__init__(env)
        self.cost = cost

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = self.env.step(action)
        work = float(np.abs(action * obs[-6:]).sum())
        return obs, float(info["x_velocity"]) - self.cost * work**0.5, terminated, truncated, info


def make(cost: float = 0.05, **kwargs: Any) -> "gymnasium.Env[Any, Any]":
    """Return a walker with the reward of Efficient."""
    return Efficient(gymnasium.make("Walker2d-v5", disable_env_checker=True, **kwargs), cost)


if "BenchWalker-v0" not in gymnasium.registry:
    gymnasium.register("BenchWalker-v0", make)
