"""Checks of one environment: spaces, returned values, episodes, action masks and bounds, and random seeds."""

import math
import numbers
import time
from typing import Any

import numpy as np
from gymnasium import spaces

from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec, choices
from pgx.envs.checks.env_under_test import (
    SECONDS,
    CheckResult,
    EnvUnderTest,
    Inconclusive,
    Result,
    Single,
    Specs,
    allowed,
    describe_error,
    draw,
    fails,
    flat,
    holds,
    reset,
    run_random_policy,
    same,
    same_bits,
    step,
    unknown,
)
from pgx.envs.spaces import mask_problem, no_action_allowed, read_mask
from pgx.envs.vector import Array

ENOUGH = 8  # episodes from which a rule of how they end may be read


def made(subject: EnvUnderTest) -> CheckResult:
    if isinstance(subject.env_or_problem, str):
        return fails(subject.env_or_problem)
    env = subject.env_or_problem
    limit = None if env.spec is None else env.spec.max_episode_steps
    return holds(
        f"{type(env.unwrapped).__name__}, " + (f"time limit {limit} steps" if limit else "no time limit")
    )


def spaces_taken(subject: EnvUnderTest) -> CheckResult:
    if isinstance(subject.specs_or_problem, str):
        return fails(subject.specs_or_problem)
    head = {Discrete: "categorical", MultiDiscrete: "a categorical each", Continuous: "Gaussian"}
    specs = subject.specs_or_problem
    shown, specs_or_problem = describe(specs.obs), describe(specs.action)
    return holds(f"observations: {shown}; actions: {specs_or_problem} (head: {head[type(specs.action)]})")


def describe(spec: ObsSpec | ActionSpec) -> str:
    """A spec in words."""
    match spec:
        case Discrete(n):
            return f"one of {n}"
        case MultiDiscrete(sizes):
            return f"one of {' and one of '.join(map(str, sizes))}"
        case Image(shape):
            return f"images {' x '.join(map(str, shape))}"
        case Continuous(shape):
            return f"{' x '.join(map(str, shape)) or 'one'} real number{'' if shape in ((), (1,)) else 's'}"


def interface(subject: EnvUnderTest) -> CheckResult:
    trace = subject.trace
    if trace.error:
        return fails(trace.error)
    return holds(f"{len(trace.step_seconds):,} steps and {len(trace.reset_seconds):,} resets")


def ends(subject: EnvUnderTest) -> CheckResult:
    trace, env = subject.played, subject.env
    limit = None if env.spec is None else env.spec.max_episode_steps
    starts = [i for i, result in enumerate(trace.results) if result.first]
    lengths = [end - start for start, end in zip(starts, trace.ends, strict=False)]
    if lengths:
        return holds(f"{len(lengths)} of {min(lengths)} to {max(lengths)} steps, with random actions")
    looked = f"none ended within {len(trace.step_seconds):,} steps"
    if limit is None:
        return unknown(
            f"{looked}; there is no time limit (max_episode_steps where it is registered sets one)"
        )
    return unknown(f"{looked}; the time limit is {limit:,}")


def last_observation(subject: EnvUnderTest) -> CheckResult:
    """That of an end is the successor, and not what the next episode begins with."""
    results = subject.played.results
    ended = subject.played.ends
    if not ended:
        raise Inconclusive("no episode ended")
    for i in ended:
        for key in ("final_observation", "final_obs", "terminal_observation"):
            if key in results[i].info and not same_bits(results[i].info[key], results[i].kept):
                return fails(
                    f'answer {i} ends an episode and has another observation in info["{key}"]: it resets itself'
                )
    pairs = [(results[i], results[i + 1]) for i in ended if i + 1 < len(results)]
    inner = [a for a in results if not a.first and not a.ended][:200]
    if pairs and all(same_bits(last.kept, following.kept) for last, following in pairs):
        if all(same_bits(a.kept, pairs[0][1].kept) for a in inner):
            raise Inconclusive("all observations are the same")
        return fails(f"at {len(pairs)} of {len(pairs)} ends it is the one that the next episode begins with")
    if len(pairs) >= ENOUGH and _among_the_first(results, ended, inner):
        return fails(
            f"at {len(ended)} of {len(ended)} ends it lies among those that episodes begin with, within episodes rarely"
        )
    return holds(f"{len(ended)} ends, not the observations that the next episodes begin with")


def _among_the_first(results: list[Result], ended: list[int], inner: list[Result]) -> bool:
    """Whether episodes end in the range of their beginnings and leave it in between."""
    firsts = np.stack([flat(a.kept) for a in results if a.first])
    low, high = firsts.min(axis=0), firsts.max(axis=0)

    def share(some: list[Result]) -> float:
        seen = np.stack([flat(a.kept) for a in some])
        return float(((seen >= low) & (seen <= high)).all(axis=1).mean())

    # The last episode's end has been seen, its successor has not: a range of one episode more would be fairer.
    return bool(inner) and share([results[i] for i in ended]) > 0.9 and share(inner) < 0.5


def unshared(subject: EnvUnderTest) -> CheckResult:
    """Observations that were given out stay what they were."""
    for number, result in enumerate(subject.played.results):
        if not same_bits(result.seen, result.kept):
            return fails(f"answer {number} was written over by a later one; return a copy of it")
    return holds(f"{len(subject.played.results):,} observations")


def drawing(subject: EnvUnderTest) -> CheckResult:
    mode = subject.env.render_mode
    if mode == "human":
        return fails("render_mode=human draws every step; leave env.kwargs.render_mode out")
    return holds("made and stepped without a render_mode" if mode is None else f"render_mode={mode}")


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


REPEATED = 300  # steps of which each bit is compared
PREFIX_STEPS = 30  # steps by which two beginnings are told apart
BEGINNINGS = 8
SEED_DISTANCE = 10_007  # between seeds, which a run's environments have one after another


def repeatable(subject: EnvUnderTest) -> CheckResult:
    """In an environment that has been played, and in a new one."""
    used = run_random_policy(subject.env, subject.specs, 1, REPEATED, SECONDS / 2)
    again = run_random_policy(subject.env, subject.specs, 1, REPEATED, SECONDS / 2)
    with subject.fresh_env() as env:
        new = run_random_policy(env, subject.specs, 1, REPEATED, SECONDS / 2)
    for other, which in ((again, "seeded again"), (new, "made anew")):
        for number, (one, two) in enumerate(zip(used.results, other.results, strict=False)):
            if what := same(one, two):
                return fails(f"answer {number}: another {what} when {which}")
    compared = min(len(trace.results) for trace in (used, again, new))
    if compared < 2:
        raise Inconclusive("no step was taken")
    return holds(f"{compared - 1:,} answers, seeded again and made anew")


def seeded(subject: EnvUnderTest) -> CheckResult:
    """Other seeds, other episodes."""
    beginnings = subject.cached(seeds_of)
    different = len(set(beginnings))
    if different > 1:
        return holds(f"{different} of {len(beginnings)} seeds begin differently")
    if len(set(subject.cached(streams_of))) > 1:
        return fails(f"{len(beginnings)} seeds begin alike, episodes after them do not: the seed is not used")
    return unknown(
        f"{len(beginnings)} seeds begin alike: a task without chance, or one that ignores its seed"
    )


def continued(subject: EnvUnderTest) -> CheckResult:
    """A reset without a seed goes on with the stream."""
    beginnings = subject.cached(streams_of)
    different = len(set(beginnings))
    if different > 1:
        return holds(f"{different} of {len(beginnings)} resets without a seed begin differently")
    if len(set(subject.cached(seeds_of))) > 1:
        return fails(f"{len(beginnings)} resets without a seed begin alike, while seeds do not")
    return unknown(f"{len(beginnings)} resets begin alike: a task without chance")


def seeds_of(subject: EnvUnderTest) -> list[bytes]:
    """Beginnings of episodes from seeds far apart."""
    return prefixes(subject, [SEED_DISTANCE * i for i in range(BEGINNINGS)])


def streams_of(subject: EnvUnderTest) -> list[bytes]:
    """Beginnings of episodes one after another, the first of them seeded."""
    return prefixes(subject, [5, *[None] * BEGINNINGS])[1:]


def prefixes(subject: EnvUnderTest, seeds: list[int | None]) -> list[bytes]:
    """How episodes begin under the same actions; at least two of them, more while there is time.

    Raises:
        Untold: there is but one.
    """
    end = time.perf_counter() + SECONDS / 2
    steps = PREFIX_STEPS
    if subject.step_seconds > 0:  # a slow environment shows fewer
        steps = max(2, min(PREFIX_STEPS, int(SECONDS / 6 / subject.step_seconds)))
    seen: list[bytes] = []
    for seed in seeds:
        if len(seen) > 2 and time.perf_counter() > end:
            break
        seen.append(_prefix(subject.env, subject.specs, seed, steps))
    return seen


def _prefix(env: Single, specs: Specs, seed: int | None, steps: int) -> bytes:
    rng, result = np.random.default_rng(0), reset(env, seed)
    said = []
    for _ in range(steps):
        said.append(np.asarray(result.kept).tobytes() + repr((result.reward, result.ended)).encode())
        if result.ended:
            break
        mask = allowed(result.info, specs.action)
        said.append(b"" if mask is None else mask.tobytes())
        result = step(env, specs.write(draw(rng, specs.action, 1, mask))[0])
    return b"".join(said)
