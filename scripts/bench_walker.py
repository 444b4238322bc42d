"""An environment that only Python has, for scripts/bench_envs.py: a walker whose reward was rewritten by a wrapper."""

from typing import Any

import gymnasium
import numpy as np


class Efficient(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Forward speed less the square root of the work of the joints, as a user would write it.

    Args:
        env: a walker.
        cost: of a unit.
    """

    def __init__(self, env: "gymnasium.Env[Any, Any]", cost: float) -> None:
        super().__init__(env)
        self.cost = cost

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = self.env.step(action)
        work = float(np.abs(action * obs[-6:]).sum())
        return obs, float(info["x_velocity"]) - self.cost * work**0.5, terminated, truncated, info


def make(cost: float = 0.05, **kwargs: Any) -> "gymnasium.Env[Any, Any]":
    """A walker whose steps are paid by Efficient."""
    return Efficient(gymnasium.make("Walker2d-v5", disable_env_checker=True, **kwargs), cost)


if "BenchWalker-v0" not in gymnasium.registry:
    gymnasium.register("BenchWalker-v0", make)
