"""Validation of the values that reset() and step() of an environment return."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.tracebacks import describe_exception

_RESET_RETURN = "(observation, info)"
_STEP_RETURN = "(observation, reward, terminated, truncated, info)"
_OLD_API_HINT = (
    "environments of Gym's API before 0.26 need a wrapper, for example shimmy's GymV21CompatibilityV0"
)


class InvalidResult(Exception):
    """An environment returned a value that Gymnasium's API does not allow."""


def unpack_reset(returned: Any) -> tuple[Any, dict[str, Any]]:
    """Return observation and info of a reset.

    Raises:
        InvalidResult: the returned value is not (observation, info).
    """
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise InvalidResult(
            f"reset() returned {_describe_type(returned)}; expected {_RESET_RETURN}, info a dict; {_OLD_API_HINT}"
        )
    return returned


def unpack_step(returned: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """Return observation, reward, terminated, truncated and info of a step.

    Raises:
        InvalidResult: the returned value is not such a tuple.
    """
    if not (isinstance(returned, tuple) and len(returned) == 5 and isinstance(returned[4], dict)):
        raise InvalidResult(
            f"step() returned {_describe_type(returned)}; expected {_STEP_RETURN}, info a dict; {_OLD_API_HINT}"
        )
    return returned


def to_scalar(value: Any, name: str) -> Any:
    """Return a reward or a flag as a Python scalar.

    Args:
        value: as returned by step(): a number, or an array of one number.
        name: "reward", "terminated" or "truncated", for messages.

    Raises:
        InvalidResult: it is not one real number.
    """
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "fiub":
        shape = f" of shape {list(found.shape)}" if found.shape else ""
        raise InvalidResult(
            f"step() returned {_shortened(value)}, a {type(value).__name__}{shape}, as {name}; expected one "
            f"{'number' if name == 'reward' else 'boolean'}"
        )
    return found.item()


def stack_observations(observations: Sequence[Any], call: str, space: "gymnasium.Space[Any]") -> NDArray[Any]:
    """Stack the observations of N environments to a new array [N, ...] with the space's dtype.

    Args:
        observations: one of each environment.
        call: the call that returned them, "reset()" or "step()", for messages.
        space: of one observation.

    Raises:
        InvalidResult: an observation has another shape than the space, or numbers that its dtype cannot hold.
    """
    assert space.shape is not None
    rows = np.empty((len(observations), *space.shape), space.dtype)
    try:
        return np.stack(observations, out=rows)
    except (TypeError, ValueError):
        for obs in observations:
            if problem := _obs_problem(obs, space):
                raise InvalidResult(f"{call} returned {problem}") from None
        raise


def _obs_problem(obs: Any, space: "gymnasium.Space[Any]") -> str:
    """Return why an observation does not fit its space; empty: it does."""
    if isinstance(obs, dict | str | None):
        return f"a {type(obs).__name__} as observation; the observation space is {space}"
    try:
        array = np.asarray(obs)
    except ValueError:
        return f"{_shortened(obs)} as observation, which is not an array; the observation space is {space}"
    if array.shape != space.shape:
        return f"an observation of shape {list(array.shape)}; the observation space has shape {list(space.shape or ())}"
    if space.dtype is not None and not np.can_cast(array.dtype, space.dtype, "same_kind"):
        return f"an observation of dtype {array.dtype}; the observation space has dtype {space.dtype}"
    return ""


def describe_failure(call: str, error: Exception, env_id: str) -> str:
    """Describe in one sentence why a call of an environment failed.

    Args:
        call: "reset()" or "step()".
        error: raised by the call or by the validation of its result.
        env_id: for the suggested `pgx check` command.
    """
    if isinstance(error, InvalidResult):
        return f"{error} (`pgx check env={env_id}` tests every rule)"
    if isinstance(error, TypeError) and "unexpected keyword argument 'seed'" in str(error):
        return (
            f"{call} has no parameter seed; define it as reset(self, *, seed=None, options=None); {_OLD_API_HINT} "
            f"(`pgx check env={env_id}` tests every rule)"
        )
    return f"{call} raised {describe_exception(error)}"


def _describe_type(returned: Any) -> str:
    if isinstance(returned, tuple):
        return f"{len(returned)} values ({', '.join(type(part).__name__ for part in returned)})"
    return f"a {type(returned).__name__}"


def _shortened(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
