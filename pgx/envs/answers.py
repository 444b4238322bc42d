"""What can be read of an environment after a step beside what the step tells: `info.KEY`, `simulator.NAME`.

Check what an environment's reset() and step() return, and say in one sentence what is wrong with it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.schema import nearest
from pgx.distributed.stuck import frames_of, place

Single = gymnasium.Env[Any, Any]
Readings = Mapping[str, NDArray[np.float64]]  # [N, ...] each


def flight(env: Any) -> float:
    """Seconds of the step, if nothing of the robot touches the world when it ends; else 0."""
    contacts = env.data.contact.geom[: env.data.ncon]
    return 0.0 if (env.model.geom_bodyid[contacts] == 0).any() else float(env.dt)


SIMULATOR: dict[str, Callable[[Any], Any]] = {
    "flight": flight,
    "qpos": lambda env: env.data.qpos,
    "qvel": lambda env: env.data.qvel,
}


def read(env: Single, info: Mapping[str, Any], name: str) -> Any:
    """One reading of one environment.

    Raises:
        KeyError, AttributeError: it has none of that name.
    """
    source, _, key = name.partition(".")
    return info[key] if source == "info" else SIMULATOR[key](env.unwrapped)


def reading_problem(env: Single, name: str) -> str | None:
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


class Reader:
    """Reads so many environments of one kind, one after another.

    Args:
        names: of the readings.
        envs: of MuJoCo's where the simulator is to be read.
    """

    def __init__(self, names: Sequence[str], envs: Sequence[Single]) -> None:
        self.shapes = {name: _shape(envs[0], name) for name in names}
        self._envs = envs

    def read(self, infos: Sequence[Mapping[str, Any]], resetting: NDArray[np.bool_]) -> Readings:
        """Of the last step; 0 where an environment only reset.

        Raises:
            KeyError: an info has no such key.
        """
        found = {name: np.zeros((len(self._envs), *shape)) for name, shape in self.shapes.items()}
        for name, values in found.items():
            for i, (env, info) in enumerate(zip(self._envs, infos, strict=True)):
                if not resetting[i]:
                    values[i] = read(env, info, name)
        return found


def _shape(env: Single, name: str) -> tuple[int, ...]:
    """Of a reading; known before the first step."""
    return np.shape(read(env, {}, name)) if name.startswith("simulator.") else ()


RESET = "(observation, info)"
STEP = "(observation, reward, terminated, truncated, info)"
OLD = "environments of Gym's API before 0.26 need a wrapper, for example shimmy's GymV21CompatibilityV0"


class Malformed(Exception):
    """An environment returned something that Gymnasium's API does not allow."""


def unpack_reset(answer: Any) -> tuple[Any, dict[str, Any]]:
    """Return observation and info of a reset.

    Raises:
        Malformed: the answer has another form.
    """
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
        raise Malformed(f"reset() returned {_form(answer)}; expected {RESET}, info a dict; {OLD}")
    return answer


def unpack_step(answer: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """Return observation, reward, terminated, truncated and info of a step.

    Raises:
        Malformed: the answer has another form.
    """
    if not (isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[4], dict)):
        raise Malformed(f"step() returned {_form(answer)}; expected {STEP}, info a dict; {OLD}")
    return answer


def number(value: Any, name: str) -> Any:
    """Return the one number that a reward or a flag consists of.

    Raises:
        Malformed: it is not one real number.
    """
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "fiub":
        shape = f" of shape {list(found.shape)}" if found.shape else ""
        raise Malformed(
            f"step() returned {_short(value)}, a {type(value).__name__}{shape}, as {name}; expected one "
            f"{'number' if name == 'reward' else 'truth value'}"
        )
    return found.item()


def stacked(observations: Sequence[Any], call: str, space: "gymnasium.Space[Any]") -> NDArray[Any]:
    """Return the observations of N environments as one new array [N, ...] of their space.

    Args:
        observations: of each environment.
        call: that returned them, "reset()" or "step()".
        space: of one observation.

    Raises:
        Malformed: an observation has another shape than the space, or numbers that the space's dtype cannot hold.
    """
    assert space.shape is not None
    rows = np.empty((len(observations), *space.shape), space.dtype)
    try:
        return np.stack(observations, out=rows)
    except (TypeError, ValueError):
        for seen in observations:
            if problem := _misfit(seen, space):
                raise Malformed(f"{call} returned {problem}") from None
        raise


def _misfit(seen: Any, space: "gymnasium.Space[Any]") -> str:
    """Describe how an observation does not fit its space; empty: it does."""
    if isinstance(seen, dict | str | None):
        return f"a {type(seen).__name__} as observation; the observation space is {space}"
    try:
        array = np.asarray(seen)
    except ValueError:
        return f"{_short(seen)} as observation, which is no array; the observation space is {space}"
    if array.shape != space.shape:
        said = f"shape {list(space.shape or ())}"
        return f"an observation of shape {list(array.shape)}; the observation space says {said}"
    if space.dtype is not None and not np.can_cast(array.dtype, space.dtype, "same_kind"):
        return f"an observation of {array.dtype} numbers; the observation space says {space.dtype}"
    return ""


def failure(call: str, error: Exception, env_id: str) -> str:
    """Describe in one sentence why a call of an environment failed.

    Args:
        call: "reset()" or "step()".
        error: that came of it.
        env_id: for the command that looks at the environment.
    """
    if isinstance(error, Malformed):
        return f"{error} (`pgx check env={env_id}` tests every rule)"
    if isinstance(error, TypeError) and "unexpected keyword argument 'seed'" in str(error):
        return (
            f"{call} takes no seed; define it as reset(self, *, seed=None, options=None); {OLD} "
            f"(`pgx check env={env_id}` tests every rule)"
        )
    where = place(frames_of(error))
    return f"{call} raised {type(error).__name__}: {error}" + (f", {where}" if where else "")


def _form(answer: Any) -> str:
    if isinstance(answer, tuple):
        return f"{len(answer)} values ({', '.join(type(part).__name__ for part in answer)})"
    return f"a {type(answer).__name__}"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
