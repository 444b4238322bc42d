"""Environments that raise, exit or hang. Worker processes import this module, which does not import torch."""

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Trouble(gymnasium.Env[Any, Any]):
    """Environment whose observation is its number, whether its process imported torch, and its optimization level.

    Environments from `number` on fail.

    Args:
        at: call that fails: "constructor" (in all environments), "reset" or "step"; anything else: none.
        what: "raise", "exit" (of the process), "sleep" (forever), "nap" (longer for higher numbers), "hold" (of the
            interpreter's lock), "wait" (until `path` exists), "mask" (of the wrong length).
        number: first number that fails; environment i has the number i when seeded from a multiple of 100.
        path: of a file.
    """

    observation_space = spaces.Box(0.0, 100.0, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, at: str = "", what: str = "raise", number: int = 0, path: str = "") -> None:
        self.at, self.what, self.unlucky, self.path = at, what, number, path
        self.number = number
        self._meet("constructor")

    def _meet(self, place: str) -> dict[str, Any]:
        if self.at != place or self.number < self.unlucky:
            return {}
        match self.what:
            case "raise":
                raise RuntimeError(f"robot {self.number} fell")
            case "exit":
                os._exit(3)
            case "sleep":
                time.sleep(1e6)
            case "nap":
                time.sleep(1.9 * (self.number + 1))
            case "hold":
                ctypes.PyDLL(None).pause()  # with the interpreter's lock
            case "wait":
                for _ in range(3000):
                    if Path(self.path).exists():
                        return {}
                    time.sleep(0.01)
                raise RuntimeError("the file did not appear")
            case "mask":
                return {"action_mask": np.ones(3, np.int8)}
        raise ValueError(self.what)

    def _show(self) -> Any:
        return np.array([self.number, "torch" in sys.modules, sys.flags.optimize], np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.number = seed % 100
        return self._show(), self._meet("reset")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._show(), 1.0, False, False, self._meet("step")


class Slow(Trouble):
    """Environment whose step takes 5 ms."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(5e-3)
        return super().step(action)


class Fickle(Trouble):
    """Environment with wider observations in all processes but the first, which creates the file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        try:
            Path(path).touch(exist_ok=False)
        except FileExistsError:
            self.observation_space = spaces.Box(0.0, 100.0, (4,), np.float32)


for name, kind in (("Trouble", Trouble), ("Slow", Slow), ("Fickle", Fickle)):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", kind)
