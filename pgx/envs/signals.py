"""Quantities that reward terms read next to the results of a step: `info.KEY` and `simulator.NAME`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.schema import nearest

Single = gymnasium.Env[Any, Any]
Signals = Mapping[str, NDArray[np.float64]]  # [N, ...] each


def flight(env: Any) -> float:
    """Seconds of the step, if nothing of the robot touches the world when it ends; else 0."""
    contacts = env.data.contact.geom[: env.data.ncon]
    return 0.0 if (env.model.geom_bodyid[contacts] == 0).any() else float(env.dt)


SIMULATOR: dict[str, Callable[[Any], Any]] = {
    "flight": flight,
    "qpos": lambda env: env.data.qpos,
    "qvel": lambda env: env.data.qvel,
}


def read_signal(env: Single, info: Mapping[str, Any], name: str) -> Any:
    """One reading of one environment.

    Raises:
        KeyError, AttributeError: it has none of that name.
    """
    source, _, key = name.partition(".")
    return info[key] if source == "info" else SIMULATOR[key](env.unwrapped)


def signal_problem(env: Single, name: str) -> str | None:
    """Why an environment has no such reading; None: it has.

    Args:
        env: which is reset, and takes a step where its info has to be seen.
        name: of the reading.
    """
    source, _, key = name.partition(".")
    if source == "simulator":
        return None if {"data", "model"} <= vars(env.unwrapped).keys() else "it is no environment of MuJoCo's"
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    info = env.step(env.action_space.sample())[4]
    if key not in info:
        return f"the info of its steps has no '{key}'{nearest(key, info)}; it has: {', '.join(info) or 'nothing'}"
    if np.shape(info[key]) != ():
        return f"'{key}' in the info of its steps is no number"
    return None


class SignalReader:
    """Reads so many environments of one kind, one after another.

    Args:
        names: of the readings.
        envs: of MuJoCo's where the simulator is to be read.
    """

    def __init__(self, names: Sequence[str], envs: Sequence[Single]) -> None:
        self.shapes = {name: _shape(envs[0], name) for name in names}
        self._envs = envs

    def read(self, infos: Sequence[Mapping[str, Any]], resetting: NDArray[np.bool_]) -> Signals:
        """Of the last step; 0 where an environment only reset.

        Raises:
            KeyError: an info has no such key.
        """
        found = {name: np.zeros((len(self._envs), *shape)) for name, shape in self.shapes.items()}
        for name, values in found.items():
            for i, (env, info) in enumerate(zip(self._envs, infos, strict=True)):
                if not resetting[i]:
                    values[i] = read_signal(env, info, name)
        return found


def _shape(env: Single, name: str) -> tuple[int, ...]:
    """Of a reading; known before the first step."""
    return np.shape(read_signal(env, {}, name)) if name.startswith("simulator.") else ()
