"""Gymnasium environments in this process, one after another."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from pgx.envs import spaces
from pgx.envs.vector import Array, Step
from pgx.errors import RunError, UserError
from pgx.types import Discrete, MultiDiscrete

Mask = NDArray[np.bool_]


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
        self.action_mask: Mask | None = None
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
            obs, infos = self._envs.reset(seed=seed)
        except Exception as error:
            raise RunError(f"{self.id}: reset() raised {type(error).__name__}: {error}") from error
        self._note_masks(infos, ended=np.zeros(self.num_envs, dtype=bool))
        return self._read(obs)

    def send(self, action: Array) -> None:
        self._action = self._write(action)

    def receive(self) -> Step:
        try:
            obs, reward, terminated, truncated, infos = self._envs.step(self._action)
        except Exception as error:
            raise RunError(f"{self.id}: step() raised {type(error).__name__}: {error}") from error
        self._note_masks(infos, ended=terminated | truncated)
        return Step(self._read(obs), reward.astype(np.float64), terminated, truncated)

    def _note_masks(self, infos: dict[str, Any], ended: Mask) -> None:
        """Keep info["action_mask"] of each environment; all actions where one gives none.

        Args:
            infos: of the step or reset.
            ended: [N] where the step to come only resets: a mask there is of no action, and may forbid all.
        """
        self.action_mask = None
        if "action_mask" not in infos:
            return
        sizes = self._sizes()
        allowed = np.ones((self.num_envs, sum(sizes)), dtype=bool)
        for i in np.flatnonzero(infos["_action_mask"]):
            mask = infos["action_mask"][i]
            if isinstance(
                mask, tuple
            ):  # one array a component, as Gymnasium's MultiDiscrete.sample takes them
                mask = np.concatenate(mask)
            if np.shape(mask) != (sum(sizes),):
                raise RunError(
                    f'{self.id}: info["action_mask"] of environment {i} has the shape {list(np.shape(mask))}; '
                    f"expected [{sum(sizes)}], a number for each choice"
                )
            allowed[i] = mask
        parts = np.split(allowed, np.cumsum(sizes)[:-1], axis=1)
        stuck = np.any([~part.any(axis=1) for part in parts], axis=0)
        if (stuck & ~ended).any():
            raise RunError(
                f'{self.id}: info["action_mask"] of environment {np.flatnonzero(stuck & ~ended)[0]} forbids every '
                "action (of a component) and its episode has not ended"
            )
        allowed[stuck] = True
        self.action_mask = allowed

    def _sizes(self) -> tuple[int, ...]:
        """Of the discrete choices that an action consists of."""
        match self.action_spec:
            case Discrete(n):
                return (n,)
            case MultiDiscrete(sizes):
                return sizes
        raise RunError(
            f'{self.id}: info["action_mask"] for actions {self.action_spec}; masks are of discrete ones'
        )

    def close(self) -> None:
        self._envs.close()
