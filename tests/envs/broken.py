"""An environment on which every assumption of the trainer holds, and which can be broken in every way."""

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
    """A random walk of twelve steps: shows where it is and the time, and pays for being near 0.

    Args:
        fault: what is wrong; "none" by default.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human"]}
    observation_space: Any = spaces.Box(-20.0, 20.0, (2,), np.float32)
    action_space: Any = spaces.Discrete(2)

    def __init__(self, fault: str = "none", render_mode: str | None = None) -> None:
        self.fault, self.render_mode = fault, render_mode
        self.steps, self.episodes, self.buffer = 0, 0, np.zeros(2, np.float32)
        self.own = np.random.default_rng(0)
        self.made = next(MADE)
        if fault == "alone":
            if OPEN:
                raise RuntimeError("the port is taken")
            OPEN.add(self)
        self.last_seed = 0
        match fault:
            case "constructor":
                raise RuntimeError("no licence")
            case "dict":
                self.observation_space = spaces.Dict({"where": self.observation_space})
            case "real":
                self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
            case "picky":
                self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
            case "unbounded":
                self.action_space = spaces.Box(-np.inf, 1.0, (2,), np.float32)
            case "pointless bounds":
                self.action_space = spaces.Box(np.array([-1, 1], np.float32), np.array([1, 1], np.float32))
            case "numbered":
                self.observation_space = spaces.Discrete(13)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        match self.fault:
            case "near seeds" if seed is not None:
                seed = seed // 1000
            case "deaf":
                seed = 0
            case "one seed" if seed is not None:
                seed = 0
            case "again":
                self.last_seed = self.last_seed if seed is None else seed
                seed = self.last_seed
        super().reset(seed=seed)
        self.seeded = seed is not None
        self.episodes += 1
        self._begin()
        match self.fault:
            case "no info":
                return self._show()
        return self._show(), self._info()

    @property
    def rng(self) -> np.random.Generator:
        match self.fault:
            case "own chance":
                return np.random.default_rng()
            case "deaf stream":
                return self.own
        return self.np_random

    def _begin(self) -> None:
        self.time = 0
        self.where = 0.5 if self.fault in ("fixed start", "masked start") else float(self.rng.uniform(-1, 1))
        if self.fault == "left over":
            self.where += 1e-3 * self.episodes
        if self.fault == "made":
            self.where += 1e-3 * self.made

    def _show(self) -> Any:
        seen = np.array([np.clip(self.where, -15, 15), min(self.time, 12)], np.float32)
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
                return {"where": seen}
            case "numbered":
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
            case "odd mask":
                return {"action_mask": np.full(2, 7, np.int8)}
            case "empty mask" if self.time == 2:
                return {"action_mask": np.zeros(2, np.int8)}
            case "sound mask" | "masked start":
                return {"action_mask": np.array([self.time % 2, 1], np.int8)}
        return {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self._meet(action)
        self.where += 0.2 * (float(np.clip(np.mean(action), -1, 1)) - 0.5) + 0.05 * float(self.rng.normal())
        self.time += 1
        done = self.time == 12 and self.fault != "endless"
        reward: Any = -abs(self.where)
        info = self._info()
        if done and self.fault in ("resets itself", "fixed start", "tells of its end"):
            last = self._show()
            self._begin()
            info |= {"final_observation": last} if self.fault == "tells of its end" else {}
        match self.fault:
            case "four":
                return self._show(), reward, done, info
            case "infinite reward" if self.time == 3:
                reward = np.inf
            case "array of rewards":
                reward = np.array([reward, reward])
            case "no reward":
                reward = None
            case "whole flags":
                return self._show(), reward, int(done), 0, info
        return self._show(), reward, done, False, info

    def close(self) -> None:
        OPEN.discard(self)

    def _meet(self, action: Any) -> None:
        match self.fault:
            case "raises" if self.steps > 30:
                raise RuntimeError("the robot fell")
            case "hangs" if self.steps > 30:
                time.sleep(1e6)
            case "exits" if self.steps > 30:
                os._exit(3)
            case "picky":
                assert self.action_space.contains(action), "too far"


if "Broken-v0" not in gymnasium.registry:
    gymnasium.register("Broken-v0", Broken)
