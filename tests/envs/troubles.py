"""Environments that fail in every way, in a module of their own: workers import it, and torch is not in it."""

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
    """Shows its number, and of its process whether it has torch and whether it skips asserts. From one number on, they
    get into trouble.

    Args:
        at: "constructor" (all of them), "reset" or "step"; anything else: never.
        what: "raise", "exit" (the process ends), "sleep" (for good), "nap" (the longer the higher its number),
            "hold" (so that no other thread of the process runs), "wait" (until `path` is there), "mask" (one of the
            wrong length).
        number: from which on; environment i has the number i when seeded from a multiple of 100.
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
                raise RuntimeError("nobody came")
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
    """A step takes 5 ms."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(5e-3)
        return super().step(action)


class Fickle(Trouble):
    """Its observations are wider in every process but the first that makes one: the one that makes the file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        try:
            Path(path).touch(exist_ok=False)
        except FileExistsError:
            self.observation_space = spaces.Box(0.0, 100.0, (4,), np.float32)


for name, kind in (("Trouble", Trouble), ("Slow", Slow), ("Fickle", Fickle)):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", kind)
