"""Environment that returns unusual or invalid values. Worker processes import this module."""

import json
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

REWARDS: dict[str, Any] = {
    "array reward": np.ones(1, np.float32),
    "nested reward": np.ones((1, 1)),
    "float32 reward": np.float32(1),
    "int reward": 1,
    "vector reward": np.ones(2),
    "text reward": "a lot",
    "no reward": None,
}
MASKS: dict[str, Any] = {
    "additive mask": [0.0, -1e9, -1e9],
    "negative mask": np.array([1, -1, 0]),
    "nan mask": [1.0, np.nan, 0.0],
    "probabilities": [0.2, 0.3, 0.5],
    "text mask": ["yes", "no", "no"],
    "zero mask": np.zeros(3, np.int8),
    "short mask": [True, False],
    "int mask": np.array([0, 1, 0]),
    "bool mask": np.array([False, True, False]),
    "float mask": np.array([0.0, 1.0, 0.0], np.float32),
}


class Odd(gymnasium.Env[Any, Any]):
    """Environment with episodes of five steps and a reward of 1 per step.

    Args:
        kind: of unusual value; "" for none.
        late: whether unusual observations and masks begin at the second step of an episode; else at the reset.
    """

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, kind: str = "", late: bool = False) -> None:
        self.kind, self.late = kind, late
        self.buffer = np.zeros(3, np.float32)

    def _show(self) -> tuple[Any, dict[str, Any]]:
        seen: Any = np.full(3, 0.1 * self.count, np.float32)
        if self.late and self.count < 2:
            return seen, {}
        match self.kind:
            case "wider":
                seen = np.zeros(4, np.float32)
            case "column":
                seen = seen[:, None]
            case "dict":
                seen = {"a": seen}
            case "complex":
                seen = seen.astype(complex)
            case "buffer":
                self.buffer[:] = seen
                seen = self.buffer
        return seen, ({"action_mask": MASKS[self.kind]} if self.kind in MASKS else {})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        if self.kind == "no info":
            return self._show()[0], None
        return self._show()[0] if self.kind == "bare" else self._show()

    def step(self, action: Any) -> Any:
        if self.kind.endswith("mask") and (self.count or not self.late):
            assert action == 1, "only action 1 is allowed"
        self.count += 1
        seen, info = self._show()
        reward, ended = REWARDS.get(self.kind, 1.0), self.count == 5
        match self.kind:
            case "four":
                return seen, reward, ended, info
            case "raises":
                return {}["joint"]
            case "json":
                json.dumps(action)
            case "table":
                reward = {0: -1.0, 1: 0.0, 2: 1.0}[action]
            case "array flag":
                return seen, reward, np.array([ended]), False, info
            case "text flag":
                return seen, reward, "no", False, info
            case "vector flag":
                return seen, reward, ended, np.array([False, True]), info
        return seen, reward, ended, False, info


class Seedless(Odd):
    """Environment whose reset has no parameter seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class Bounded(Odd):
    """Environment with one continuous action.

    Args:
        low, high: bounds of the action.
        above: excess of observations over their bound, in units in the last place.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0, above: int = 0) -> None:
        super().__init__()
        self.action_space = spaces.Box(low, high, (1,), np.float64)  # type: ignore[assignment]
        self.above = above

    def _show(self) -> tuple[Any, dict[str, Any]]:
        seen = np.full(3, 1.0 + self.above * np.finfo(np.float32).eps, np.float32)
        return np.where(np.arange(3) == self.count % 3, seen, -seen), {}


class Fast(Odd):
    """Environment with the spaces of EnvPool's highway-fast-v0 but another task."""

    observation_space = spaces.Box(-np.inf, np.inf, (5, 5), np.float32)
    action_space = spaces.Discrete(5)


class Large(Odd):
    """Environment with observations up to a magnitude: three real numbers, or an image of 7 x 7 x 3 bounded by it."""

    def __init__(self, magnitude: int = 1, image: bool = False) -> None:
        super().__init__()
        self.magnitude = magnitude
        self.observation_space = (  # type: ignore[assignment]
            spaces.Box(0, magnitude, (7, 7, 3), np.uint8)
            if image
            else spaces.Box(-np.inf, np.inf, (3,), np.float32)
        )

    def _show(self) -> tuple[Any, dict[str, Any]]:
        space = self.observation_space
        return np.full(space.shape, self.magnitude - self.count % 2, space.dtype), {}


for name, made in (("Odd", Odd), ("Seedless", Seedless), ("Bounded", Bounded), ("Large", Large)):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", made)
