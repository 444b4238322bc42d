"""Train on your own environment: a point that learns to reach the origin.

    pgx check env=custom_environment:Point-v0
    pgx train algo=ppo env=custom_environment:Point-v0 trainer.total_steps=100_000

`env=module:Id` imports the module, which registers the environment with Gymnasium. The module is found in the current
folder or where Python finds packages. Worker processes import it as well, so it must not train anything by itself.
"""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

Obs = NDArray[np.float32]


class Point(gymnasium.Env[Obs, Obs]):
    """Point in the plane that is pushed by its action; the reward is minus its distance to the origin."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, speed: float = 0.2) -> None:
        self.speed = speed  # set by env.kwargs.speed=0.5

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        super().reset(seed=seed)  # seeds self.np_random; use no other source of randomness
        self.position = self.np_random.uniform(-1.0, 1.0, 2)
        return self.position.astype(np.float32), {}

    def step(self, action: Obs) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        self.position = self.position + self.speed * action
        distance = float(np.linalg.norm(self.position))
        reached = distance < 0.1  # terminated: the task is over, and later rewards are 0
        return self.position.astype(np.float32), -distance, reached, False, {"is_success": reached}


# max_episode_steps truncates an episode: pgx bootstraps its value there.
gymnasium.register("Point-v0", Point, max_episode_steps=50)
