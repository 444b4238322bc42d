"""Gymnasium environments in this process, one after another."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgx.envs import spaces
from pgx.envs.vector import Array, Step
from pgx.errors import RunError, UserError


@contextmanager
def quietly() -> Iterator[None]:
    """Without the advice that libraries print where environments are made: to use another version of the one
    that the user named, or that bounds of a space were rounded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*precision lowered by casting.*", UserWarning)
        yield


def make_single(env_id: str, kwargs: dict[str, Any]) -> "gymnasium.Env[Any, Any]":
    """One environment."""
    with quietly():
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)


class GymnasiumVector:
    """N environments in Gymnasium's NEXT_STEP autoreset mode."""

    backend = "gymnasium"

    def __init__(self, env_id: str, num_envs: int, kwargs: dict[str, Any]) -> None:
        self.id = env_id
        self.num_envs = num_envs
        single = functools.partial(make_single, env_id, kwargs)
        try:
            self._envs = SyncVectorEnv([single] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
        except Exception as error:  # whatever a constructor raises, it is about this id and these kwargs
            raise UserError(
                f"env.id={env_id}: cannot be made with env.kwargs={kwargs}: {type(error).__name__}: {error}"
            ) from error
        self.obs_spec, self._read = spaces.observation(env_id, self._envs.single_observation_space)
        self.action_spec, self._write = spaces.action(env_id, self._envs.single_action_space)

    def reset(self, seed: int) -> Array:
        try:
            obs, _ = self._envs.reset(seed=seed)
        except Exception as error:
            raise RunError(f"{self.id}: reset() raised {type(error).__name__}: {error}") from error
        return self._read(obs)

    def step(self, action: Array) -> Step:
        try:
            obs, reward, terminated, truncated, _ = self._envs.step(self._write(action))
        except Exception as error:
            raise RunError(f"{self.id}: step() raised {type(error).__name__}: {error}") from error
        return Step(self._read(obs), reward.astype(np.float64), terminated, truncated)

    def close(self) -> None:
        self._envs.close()
