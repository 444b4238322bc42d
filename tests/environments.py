"""Environments for tests, registered with Gymnasium under names of their own."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Endless(gymnasium.Env[Any, Any]):
    """A chain without an end: every step earns 1. Its value is 1 / (1 - discount) wherever it is cut."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), 1.0, False, False, {}


class Counter(gymnasium.Env[Any, Any]):
    """Shows its own step count; ends or is cut at a step that its seed decides."""

    observation_space = spaces.Box(-1e6, 1e6, (1,), np.float32)
    action_space = spaces.Box(-0.5, 2.0, (2,), np.float32)

    def __init__(self, cut: bool = False) -> None:
        self.cut = cut

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.last = 0, int(self.np_random.integers(3, 9))
        return np.array([0.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.count += 1
        done = self.count == self.last
        return (
            np.array([self.count], np.float32),
            float(self.count),
            done and not self.cut,
            done and self.cut,
            {},
        )


class TwoButtons(gymnasium.Env[Any, Any]):
    """MultiDiscrete actions: press the shown digit with the first finger, anything with the second."""

    observation_space = spaces.Discrete(3, start=5)
    action_space = spaces.MultiDiscrete([3, 2])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._show(), {}

    def _show(self) -> int:
        self.digit = int(self.np_random.integers(3))
        return self.digit + 5

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        reward = float(action[0] == self.digit)
        self.count += 1
        return self._show(), reward, self.count == 10, False, {}


for name, kind, limit in (
    ("Endless", Endless, 16),
    ("Counter", Counter, None),
    ("TwoButtons", TwoButtons, None),
):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", kind, max_episode_steps=limit)
