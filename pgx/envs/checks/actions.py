"""What the trainer assumes of actions: masks that leave some, bounds that are bounds."""

import math

import numpy as np
from gymnasium import spaces

from pgx.core.specs import Continuous, choices
from pgx.envs.checks.single import describe
from pgx.envs.checks.subject import (
    CheckResult,
    EnvUnderTest,
    describe_error,
    fails,
    holds,
    reset,
    same,
    step,
    unknown,
)
from pgx.envs.spaces import mask_problem, no_action_allowed, read_mask

TINY = float(np.finfo(np.float32).tiny) * 2  # bounds between 0 and this are no bounds that anyone means
REACH = 3.0  # standard deviations within which nearly all standard normal numbers lie
MIN_COVERAGE = 0.05


def action_mask(subject: EnvUnderTest) -> CheckResult:
    sizes = choices(subject.specs.action)
    shown = [(i, a) for i, a in enumerate(subject.played.results) if "action_mask" in a.info]
    if not shown:
        return holds("none is shown: every action is allowed")
    if not sizes:
        return fails(f'info["action_mask"] for actions {describe(subject.specs.action)}')
    for number, result in shown:
        mask = result.info["action_mask"]
        if problem := mask_problem(mask, sizes):
            return fails(f"answer {number}: it {problem}")
        if not result.ended and no_action_allowed(read_mask(mask)[None], sizes)[0]:
            return fails(f"answer {number}: it forbids every action, and the episode has not ended")
    return holds(f"{len(shown):,} masks of {sum(sizes)}")


def action_bounds(subject: EnvUnderTest) -> CheckResult:
    spec, space = subject.specs.action, subject.env.action_space
    if not isinstance(spec, Continuous) or not isinstance(space, spaces.Box):
        return holds(describe(spec))
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    wrong = np.flatnonzero(~(low < high))
    if wrong.size:
        i = int(wrong[0])
        return fails(f"component {i} is in [{low[i]:g}, {high[i]:g}]")
    endless = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    if endless.size:
        return holds(
            f"component {endless[0]} has none: taken as sampled (policy.continuous=squashed_gaussian needs them)"
        )
    lost = np.flatnonzero(((low > 0) & (low < TINY)) | ((high < 0) & (high > -TINY)))
    if lost.size:
        i = int(lost[0])
        return fails(
            f"component {i} is in [{low[i]:g}, {high[i]:g}]: a bound next to 0 is likely the smallest number of a type "
            "by mistake, and actions beyond it become 0"
        )
    reached = np.maximum(np.minimum(high, REACH) - np.maximum(low, -REACH), 0.0)
    inside = np.array([_normal(b) - _normal(a) for a, b in zip(low, high, strict=True)])
    poor = np.flatnonzero((reached < MIN_COVERAGE * (high - low)) | (inside < MIN_COVERAGE))
    if poor.size:
        i = int(poor[0])
        return unknown(
            f"component {i} is in [{low[i]:g}, {high[i]:g}]: standard normal actions, as of a Gaussian policy at its "
            f"start, reach {reached[i] / (high[i] - low[i]):.2g} of that range and lie in it with probability "
            f"{inside[i]:.2g}; rescale the actions to [-1, 1], or set policy.continuous=squashed_gaussian"
        )
    return holds(
        f"[{low.min():g}, {high.max():g}]; pgx clips to them; beyond, the environment {_beyond(subject)}"
    )


def _normal(x: float) -> float:
    """Distribution function of the standard normal distribution."""
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def _beyond(subject: EnvUnderTest) -> str:
    """What the environment itself does with actions outside of their bounds."""
    space = subject.env.action_space
    assert isinstance(space, spaces.Box)
    with subject.fresh_env() as env:
        reset(env, seed=3)
        at = step(env, space.high)
        reset(env, seed=3)
        try:
            beyond = step(env, (space.high + (space.high - space.low)).astype(space.dtype))
        except Exception as error:
            return describe_error(error).replace("raised", "raises", 1)
    return "acts on them" if same(at, beyond) else "takes them for the bound"
