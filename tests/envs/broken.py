"""Environment for which all checks hold, and which can have every fault that a check detects."""

import itertools
import os
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

MADE = itertools.count()
OPEN: set[gymnasium.Env[Any, Any]] = set()
SHARED = np.zeros(2, np.float32)


class Broken(gymnasium.Env[Any, Any]):
    """Random walk of twelve steps; the observation is position and time, the reward is minus the distance to 0.

    Args:
        fault: deviation from a valid environment; "none" by default.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human"]}
    observation_space: Any = spaces.Box(-20.0, 20.0, (2,), np.float32)
    action_space: Any = spaces.Discrete(2)

    def __init__(self, fault: str = "none", render_mode: str | None = None) -> None:
        self.fault, self.render_mode = fault, render_mode
        self.steps, self.episodes, self.buffer = 0, 0, np.zeros(2, np.float32)
        self.fixed_rng = np.random.default_rng(0)
        self.made = next(MADE)
        if fault == "single instance":
            if OPEN:
                raise RuntimeError("the port is taken")
            OPEN.add(self)
        self.last_seed = 0
        match fault:
            case "constructor":
                raise RuntimeError("no licence")
            case "dict":
                self.observation_space = spaces.Dict({"position": self.observation_space})
            case "continuous":
                self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
            case "asserts actions":
                self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
            case "unbounded":
                self.action_space = spaces.Box(-np.inf, 1.0, (2,), np.float32)
            case "empty bounds":
                self.action_space = spaces.Box(np.array([-1, 1], np.float32), np.array([1, 1], np.float32))
            case "float of discrete":
                self.observation_space = spaces.Discrete(13)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        match self.fault:
            case "coarse seeds" if seed is not None:
                seed = seed // 1000
            case "ignores seeds":
                seed = 0
            case "one seed" if seed is not None:
                seed = 0
            case "repeats the episode":
                self.last_seed = self.last_seed if seed is None else seed
                seed = self.last_seed
        super().reset(seed=seed)
        self.seeded = seed is not None
        self.episodes += 1
        self._start()
        match self.fault:
            case "no info":
                return self._obs()
        return self._obs(), self._info()

    @property
    def rng(self) -> np.random.Generator:
        match self.fault:
            case "unseeded randomness":
                return np.random.default_rng()
            case "fixed stream":
                return self.fixed_rng
        return self.np_random

    def _start(self) -> None:
        self.time = 0
        self.position = (
            0.5 if self.fault in ("fixed start", "masked start") else float(self.rng.uniform(-1, 1))
        )
        if self.fault == "earlier episodes":
            self.position += 1e-3 * self.episodes
        if self.fault == "earlier instances":
            self.position += 1e-3 * self.made

    def _obs(self) -> Any:
        seen = np.array([np.clip(self.position, -15, 15), min(self.time, 12)], np.float32)
        match self.fault:
            case "noise":
                return self.rng.uniform(-1, 1, 2).astype(np.float32)
            case "noisy start" if self.seeded and self.time == 0:
                return seen + np.float32(np.random.default_rng().normal())
            case "shape":
                return seen[:1]
            case "type":
                return seen.astype(np.float64)
            case "list":
                return [float(x) for x in seen]
            case "outside" if self.time == 3:
                return seen + np.float32(30)
            case "nan" if self.time == 3:
                return np.array([np.nan, 3], np.float32)
            case "dict":
                return {"position": seen}
            case "float of discrete":
                return float(self.time)
            case "buffer" | "shared buffer":
                buffer = self.buffer if self.fault == "buffer" else SHARED
                buffer[:] = seen
                return buffer
        return seen

    def _info(self) -> dict[str, Any]:
        match self.fault:
            case "short mask":
                return {"action_mask": np.ones(3, np.int8)}
            case "mask of sevens":
                return {"action_mask": np.full(2, 7, np.int8)}
            case "empty mask" if self.time == 2:
                return {"action_mask": np.zeros(2, np.int8)}
            case "valid mask" | "masked start":
                return {"action_mask": np.array([self.time % 2, 1], np.int8)}
        return {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self._fail(action)
        self.position += 0.2 * (float(np.clip(np.mean(action), -1, 1)) - 0.5) + 0.05 * float(
            self.rng.normal()
        )
        self.time += 1
        done = self.time == 12 and self.fault != "endless"
        reward: Any = -abs(self.position)
        info = self._info()
        if done and self.fault in ("resets itself", "fixed start", "final observation"):
            last = self._obs()
            self._start()
            info |= {"final_observation": last} if self.fault == "final observation" else {}
        match self.fault:
            case "four values":
                return self._obs(), reward, done, info
            case "infinite reward" if self.time == 3:
                reward = np.inf
            case "array of rewards":
                reward = np.array([reward, reward])
            case "no reward":
                reward = None
            case "integer flags":
                return self._obs(), reward, int(done), 0, info
        return self._obs(), reward, done, False, info

    def close(self) -> None:
        OPEN.discard(self)

    def _fail(self, action: Any) -> None:
        match self.fault:
            case "raises" if self.steps > 30:
                raise RuntimeError("the robot fell")
            case "hangs" if self.steps > 30:
                time.sleep(1e6)
            case "exits" if self.steps > 30:
                os._exit(3)
            case "asserts actions":
                assert self.action_space.contains(action), "too far"


if "Broken-v0" not in gymnasium.registry:
    gymnasium.register("Broken-v0", Broken)
