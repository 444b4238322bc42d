"""What the trainer assumes of the numbers that an environment shows: their form, their bounds, their types."""

import numbers
from typing import Any

import numpy as np
from gymnasium import spaces

from pgx.core.specs import Continuous, Image
from pgx.envs.checks.subject import CheckResult, EnvUnderTest, Inconclusive, fails, flat, holds, unknown
from pgx.envs.vector import Array

MAX_MAGNITUDE = (
    100.0  # magnitude of a network's inputs above which tanh units saturate at usual initial weights
)
WHITE = 255  # value of a pixel that networks map to 1
ULPS = 4.0  # by which rounding may carry an observation over a bound of its space


def form(subject: EnvUnderTest) -> CheckResult:
    space = subject.env.observation_space
    for number, result in enumerate(subject.played.results):
        if wrong := _form_problem(result.seen, space):
            return fails(f"answer {number}: {wrong}")
    return holds(f"shape {list(space.shape or ())}, {space.dtype}")


def _form_problem(seen: Any, space: "spaces.Space[Any]") -> str:
    """How an observation is not of the kind that its space says; empty: it is."""
    if isinstance(space, spaces.Discrete):
        whole = isinstance(seen, numbers.Integral) or (
            isinstance(seen, np.ndarray) and seen.shape == () and np.issubdtype(seen.dtype, np.integer)
        )
        return "" if whole else f"{seen!r} is no whole number"
    if not isinstance(seen, np.ndarray | np.generic):
        return f"a {type(seen).__name__}, expected an array"
    if seen.shape != space.shape:
        return f"shape {list(seen.shape)}, the space says {list(space.shape or ())}"
    if seen.dtype != space.dtype:
        return f"{seen.dtype} numbers, the space says {space.dtype}"
    return ""


def bounds(subject: EnvUnderTest) -> CheckResult:
    space, results = subject.env.observation_space, subject.played.results
    if isinstance(space, spaces.Discrete):
        low, high = flat(space.start), flat(space.start + space.n - 1)
    else:
        assert isinstance(space, spaces.Box)  # no other can be played
        low, high = flat(space.low), flat(space.high)
    rounding = ULPS * _spacing(np.maximum(np.abs(low), np.abs(high)), space)
    for number, result in enumerate(results):
        seen = flat(result.kept)
        if seen.size != low.size:
            raise Inconclusive("observations are not of their space's shape")
        outside = np.flatnonzero((seen < low - rounding) | (seen > high + rounding))
        if outside.size:
            i = int(outside[0])
            between = f"[{float(low[i])!r}, {float(high[i])!r}]"
            return fails(f"answer {number}: component {i} is {float(seen[i])!r}, the space says {between}")
    endless = int(np.sum(~np.isfinite(low) | ~np.isfinite(high)))
    without = f", {endless} of {low.size} components without a bound" if endless else ""
    return holds(f"{len(results):,} observations{without}")


def _spacing(bound: Array, space: "spaces.Space[Any]") -> Array:
    """Return the distance from each bound [D] to the next number of the space's dtype; 0 for whole numbers."""
    if space.dtype is None or not np.issubdtype(space.dtype, np.floating):
        return np.zeros_like(bound)
    spacing = np.finfo(space.dtype).eps * bound
    return np.where(np.isfinite(spacing), spacing, 0.0)


def magnitude(subject: EnvUnderTest) -> CheckResult:
    """Tell whether the inputs of the networks are of order one, after pgx's own scaling."""
    space, results = subject.env.observation_space, subject.played.results
    largest = max(float(np.abs(flat(result.kept)).max(initial=0.0)) for result in results)
    match subject.specs.obs:
        case Image() if isinstance(space, spaces.Box) and space.high.max() != WHITE:
            high = int(space.high.max())
            return unknown(
                f"pixels lie in 0 to {high}, and networks divide them by {WHITE}: their inputs are "
                f"{high / WHITE:.2g} at most; multiply by {WHITE / max(high, 1):.4g}, or return float32 numbers"
            )
        case Continuous() if not subject.request.normalize_obs and largest > MAX_MAGNITUDE:
            return unknown(
                f"the largest is {largest:.3g}, and env.normalize_obs=false passes it to the networks as it is; set "
                "env.normalize_obs=true, or scale the observations"
            )
    return holds(f"the largest is {largest:.3g}")


def finite(subject: EnvUnderTest) -> CheckResult:
    for number, result in enumerate(subject.played.results):
        wrong = np.flatnonzero(~np.isfinite(flat(result.kept)))
        if wrong.size:
            return fails(
                f"answer {number}: component {wrong[0]} of the observation is {flat(result.kept)[wrong[0]]}"
            )
        if isinstance(result.reward, numbers.Real) and not np.isfinite(float(result.reward)):
            return fails(f"answer {number}: the reward is {result.reward}")
    return holds(f"{len(subject.played.results):,} answers")


def reward(subject: EnvUnderTest) -> CheckResult:
    given = [result.reward for result in subject.played.results if not result.first]
    if not given:
        raise Inconclusive("no step was taken")
    for number, value in enumerate(given):
        scalar = isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "fiub"
        if not isinstance(value, numbers.Real) and not scalar:
            shape = f" of shape {list(value.shape)}" if isinstance(value, np.ndarray) else ""
            return fails(f"step {number + 1}: {value!r}, a {type(value).__name__}{shape}")
    values = np.array([np.asarray(value).item() for value in given], dtype=np.float64)
    return holds(f"{np.nanmin(values):.4g} to {np.nanmax(values):.4g}, mean {np.nanmean(values):.4g}")


def flags(subject: EnvUnderTest) -> CheckResult:
    counts = {"terminated": 0, "truncated": 0}
    for number, result in enumerate(subject.played.results):
        for name in counts:
            value = getattr(result, name)
            if not isinstance(value, bool | np.bool_):
                return fails(f"answer {number}: {name} is {value!r}, a {type(value).__name__}")
            counts[name] += bool(value)
    return holds(f"{counts['terminated']} terminations, {counts['truncated']} truncations")
