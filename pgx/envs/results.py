"""Validation of the values that reset() and step() of an environment return."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.tracebacks import exception_frames, location

RESET = "(observation, info)"
STEP = "(observation, reward, terminated, truncated, info)"
OLD_API_HINT = (
    "environments of Gym's API before 0.26 need a wrapper, for example shimmy's GymV21CompatibilityV0"
)


class InvalidResult(Exception):
    """An environment returned something that Gymnasium's API does not allow."""


def unpack_reset(answer: Any) -> tuple[Any, dict[str, Any]]:
    """Return observation and info of a reset.

    Raises:
        Malformed: the answer has another form.
    """
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
        raise InvalidResult(
            f"reset() returned {_describe_type(answer)}; expected {RESET}, info a dict; {OLD_API_HINT}"
        )
    return answer


def unpack_step(answer: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """Return observation, reward, terminated, truncated and info of a step.

    Raises:
        Malformed: the answer has another form.
    """
    if not (isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[4], dict)):
        raise InvalidResult(
            f"step() returned {_describe_type(answer)}; expected {STEP}, info a dict; {OLD_API_HINT}"
        )
    return answer


def number(value: Any, name: str) -> Any:
    """Return the one number that a reward or a flag consists of.

    Raises:
        Malformed: it is not one real number.
    """
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "fiub":
        shape = f" of shape {list(found.shape)}" if found.shape else ""
        raise InvalidResult(
            f"step() returned {_shortened(value)}, a {type(value).__name__}{shape}, as {name}; expected one "
            f"{'number' if name == 'reward' else 'truth value'}"
        )
    return found.item()


def stack_observations(observations: Sequence[Any], call: str, space: "gymnasium.Space[Any]") -> NDArray[Any]:
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
                raise InvalidResult(f"{call} returned {problem}") from None
        raise


def _misfit(seen: Any, space: "gymnasium.Space[Any]") -> str:
    """Describe how an observation does not fit its space; empty: it does."""
    if isinstance(seen, dict | str | None):
        return f"a {type(seen).__name__} as observation; the observation space is {space}"
    try:
        array = np.asarray(seen)
    except ValueError:
        return f"{_shortened(seen)} as observation, which is no array; the observation space is {space}"
    if array.shape != space.shape:
        said = f"shape {list(space.shape or ())}"
        return f"an observation of shape {list(array.shape)}; the observation space says {said}"
    if space.dtype is not None and not np.can_cast(array.dtype, space.dtype, "same_kind"):
        return f"an observation of {array.dtype} numbers; the observation space says {space.dtype}"
    return ""


def describe_failure(call: str, error: Exception, env_id: str) -> str:
    """Describe in one sentence why a call of an environment failed.

    Args:
        call: "reset()" or "step()".
        error: that came of it.
        env_id: for the command that looks at the environment.
    """
    if isinstance(error, InvalidResult):
        return f"{error} (`pgx check env={env_id}` tests every rule)"
    if isinstance(error, TypeError) and "unexpected keyword argument 'seed'" in str(error):
        return (
            f"{call} takes no seed; define it as reset(self, *, seed=None, options=None); {OLD_API_HINT} "
            f"(`pgx check env={env_id}` tests every rule)"
        )
    where = location(exception_frames(error))
    return f"{call} raised {type(error).__name__}: {error}" + (f", {where}" if where else "")


def _describe_type(answer: Any) -> str:
    if isinstance(answer, tuple):
        return f"{len(answer)} values ({', '.join(type(part).__name__ for part in answer)})"
    return f"a {type(answer).__name__}"


def _shortened(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
