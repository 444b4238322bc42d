"""Checks of one environment: spaces, returned values, episodes, action masks and bounds, and random seeds."""

import math
import numbers
import time
from typing import Any

import numpy as np
from gymnasium import spaces

from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec, choice_sizes
from pgx.envs.checks.env_under_test import (
    CHECK_SECONDS,
    CheckResult,
    EnvOutput,
    EnvUnderTest,
    Inconclusive,
    action_mask_of,
    bit_equal,
    describe_error,
    difference,
    fails,
    holds,
    random_actions,
    reset_env,
    run_random_policy,
    step_env,
    to_vector,
    unknown,
)
from pgx.envs.spaces import mask_problem, no_action_allowed, read_mask
from pgx.envs.vector import AnyArray

_MIN_EPISODES = 8  # needed to compare the last observations of episodes with the first ones

_MAX_MAGNITUDE = 100.0  # of a network's inputs; larger ones saturate tanh units at usual initial weights
_MAX_PIXEL = 255  # networks divide pixels by this
_ULPS = 4.0  # an observation may exceed a bound by this many spacings of floating-point numbers

_SMALLEST_BOUND = float(np.finfo(np.float32).tiny) * 2  # a bound between 0 and this is likely a mistake
_NORMAL_RANGE = 3.0  # standard deviations that contain nearly all standard normal numbers
_MIN_COVERAGE = 0.05

_COMPARED_STEPS = 300  # compared bit by bit
_PREFIX_STEPS = 30  # by which the beginnings of two episodes are compared
_EPISODES = 8  # whose beginnings are compared
_SEED_DISTANCE = 10_007  # between compared seeds; a run's environments have consecutive seeds


def check_created(target: EnvUnderTest) -> CheckResult:
    if isinstance(target.env_or_problem, str):
        return fails(target.env_or_problem)
    env = target.env_or_problem
    limit = None if env.spec is None else env.spec.max_episode_steps
    return holds(
        f"{type(env.unwrapped).__name__}, " + (f"time limit {limit} steps" if limit else "no time limit")
    )


def check_spaces(target: EnvUnderTest) -> CheckResult:
    if isinstance(target.specs_or_problem, str):
        return fails(target.specs_or_problem)
    head = {Discrete: "categorical", MultiDiscrete: "a categorical each", Continuous: "Gaussian"}
    specs = target.specs_or_problem
    obs, action = _describe_spec(specs.obs), _describe_spec(specs.action)
    return holds(f"observations: {obs}; actions: {action} (head: {head[type(specs.action)]})")


def _describe_spec(spec: ObsSpec | ActionSpec) -> str:
    match spec:
        case Discrete(n):
            return f"one of {n}"
        case MultiDiscrete(sizes):
            return f"one of {' and one of '.join(map(str, sizes))}"
        case Image(shape):
            return f"images {' x '.join(map(str, shape))}"
        case Continuous(shape):
            return f"{' x '.join(map(str, shape)) or 'one'} real number{'' if shape in ((), (1,)) else 's'}"


def check_interface(target: EnvUnderTest) -> CheckResult:
    trace = target.trace
    if trace.error:
        return fails(trace.error)
    return holds(f"{len(trace.step_seconds):,} steps and {len(trace.reset_seconds):,} resets")


def check_ends(target: EnvUnderTest) -> CheckResult:
    trace, env = target.nonempty_trace, target.env
    limit = None if env.spec is None else env.spec.max_episode_steps
    starts = [i for i, output in enumerate(trace.outputs) if output.is_reset]
    lengths = [end - start for start, end in zip(starts, trace.ends, strict=False)]
    if lengths:
        return holds(f"{len(lengths)} of {min(lengths)} to {max(lengths)} steps, with random actions")
    none_ended = f"none ended within {len(trace.step_seconds):,} steps"
    if limit is None:
        return unknown(f"{none_ended}; there is no time limit; register it with max_episode_steps to set one")
    return unknown(f"{none_ended}; the time limit is {limit:,}")


def check_last_observations(target: EnvUnderTest) -> CheckResult:
    """Check that the last observation of an episode is its successor state, not the start of the next episode."""
    outputs = target.nonempty_trace.outputs
    ended = target.nonempty_trace.ends
    if not ended:
        raise Inconclusive("no episode ended")
    for i in ended:
        for key in ("final_observation", "final_obs", "terminal_observation"):
            if key in outputs[i].info and not bit_equal(outputs[i].info[key], outputs[i].obs_copy):
                return fails(
                    f'output {i} ends an episode and has another observation in info["{key}"]: the environment '
                    "resets itself"
                )
    pairs = [(outputs[i], outputs[i + 1]) for i in ended if i + 1 < len(outputs)]
    inner = [each for each in outputs if not each.is_reset and not each.ended][:200]
    if pairs and all(bit_equal(last.obs_copy, following.obs_copy) for last, following in pairs):
        if all(bit_equal(each.obs_copy, pairs[0][1].obs_copy) for each in inner):
            raise Inconclusive("all observations are equal")
        return fails(f"at {len(pairs)} of {len(pairs)} ends it equals the first one of the next episode")
    if len(pairs) >= _MIN_EPISODES and _ends_resemble_starts(outputs, ended, inner):
        return fails(
            f"at {len(ended)} of {len(ended)} ends it lies in the range of the first observations, within episodes "
            "rarely"
        )
    return holds(f"{len(ended)} ends, none equal to the first observation of the next episode")


def _ends_resemble_starts(outputs: list[EnvOutput], ended: list[int], inner: list[EnvOutput]) -> bool:
    """Return whether last observations lie in the range of the first ones, and most of the others do not."""
    firsts = np.stack([to_vector(each.obs_copy) for each in outputs if each.is_reset])
    low, high = firsts.min(axis=0), firsts.max(axis=0)

    def fraction_in_range(some: list[EnvOutput]) -> float:
        observations = np.stack([to_vector(each.obs_copy) for each in some])
        return float(((observations >= low) & (observations <= high)).all(axis=1).mean())

    # 0.9 rather than 1: the first observation after the last end is not in the trace, so the range lacks one episode.
    return (
        bool(inner)
        and fraction_in_range([outputs[i] for i in ended]) > 0.9
        and fraction_in_range(inner) < 0.5
    )


def check_not_overwritten(target: EnvUnderTest) -> CheckResult:
    for number, output in enumerate(target.nonempty_trace.outputs):
        if not bit_equal(output.obs, output.obs_copy):
            return fails(
                f"the observation of output {number} was overwritten by a later one; return a copy of it"
            )
    return holds(f"{len(target.nonempty_trace.outputs):,} observations")


def check_no_rendering(target: EnvUnderTest) -> CheckResult:
    mode = target.env.render_mode
    if mode == "human":
        return fails("env.kwargs.render_mode=human: renders every step; remove it")
    return holds("created and stepped without a render_mode" if mode is None else f"render_mode={mode}")


def check_observation_form(target: EnvUnderTest) -> CheckResult:
    space = target.env.observation_space
    for number, output in enumerate(target.nonempty_trace.outputs):
        if problem := _form_problem(output.obs, space):
            return fails(f"output {number}: {problem}")
    return holds(f"shape {list(space.shape or ())}, {space.dtype}")


def _form_problem(obs: Any, space: "spaces.Space[Any]") -> str:
    """Return how the type, shape or dtype of an observation differs from its space; empty: it does not."""
    if isinstance(space, spaces.Discrete):
        is_integer = isinstance(obs, numbers.Integral) or (
            isinstance(obs, np.ndarray) and obs.shape == () and np.issubdtype(obs.dtype, np.integer)
        )
        return "" if is_integer else f"{obs!r} is not an integer"
    if not isinstance(obs, np.ndarray | np.generic):
        return f"a {type(obs).__name__}, expected an array"
    if obs.shape != space.shape:
        return f"shape {list(obs.shape)}, the space has {list(space.shape or ())}"
    if obs.dtype != space.dtype:
        return f"dtype {obs.dtype}, the space has {space.dtype}"
    return ""


def check_observation_bounds(target: EnvUnderTest) -> CheckResult:
    space, outputs = target.env.observation_space, target.nonempty_trace.outputs
    if isinstance(space, spaces.Discrete):
        low, high = to_vector(space.start), to_vector(space.start + space.n - 1)
    else:
        assert isinstance(space, spaces.Box)  # other spaces have no trace
        low, high = to_vector(space.low), to_vector(space.high)
    rounding = _ULPS * _spacing(np.maximum(np.abs(low), np.abs(high)), space)
    for number, output in enumerate(outputs):
        obs = to_vector(output.obs_copy)
        if obs.size != low.size:
            raise Inconclusive("observations do not have the shape of their space")
        outside = np.flatnonzero((obs < low - rounding) | (obs > high + rounding))
        if outside.size:
            i = int(outside[0])
            bounds = f"[{float(low[i])!r}, {float(high[i])!r}]"
            return fails(f"output {number}: component {i} is {float(obs[i])!r}, the space has {bounds}")
    unbounded = int(np.sum(~np.isfinite(low) | ~np.isfinite(high)))
    suffix = f", {unbounded} of {low.size} components are unbounded" if unbounded else ""
    return holds(f"{len(outputs):,} observations{suffix}")


def _spacing(bound: AnyArray, space: "spaces.Space[Any]") -> AnyArray:
    """Return the distance from each bound [D] to the next number of the space's dtype; 0 for integers."""
    if space.dtype is None or not np.issubdtype(space.dtype, np.floating):
        return np.zeros_like(bound)
    spacing = np.finfo(space.dtype).eps * bound
    return np.where(np.isfinite(spacing), spacing, 0.0)


def check_magnitude(target: EnvUnderTest) -> CheckResult:
    """Check that the networks' inputs are of order one after pgx's scaling."""
    space, outputs = target.env.observation_space, target.nonempty_trace.outputs
    largest = max(float(np.abs(to_vector(output.obs_copy)).max(initial=0.0)) for output in outputs)
    match target.specs.obs:
        case Image() if isinstance(space, spaces.Box) and space.high.max() != _MAX_PIXEL:
            high = int(space.high.max())
            return unknown(
                f"pixels lie in 0 to {high}, and networks divide them by {_MAX_PIXEL}: their inputs are "
                f"{high / _MAX_PIXEL:.2g} at most; multiply by {_MAX_PIXEL / max(high, 1):.4g}, or return float32 "
                "numbers"
            )
        case Continuous() if not target.request.normalize_obs and largest > _MAX_MAGNITUDE:
            return unknown(
                f"the largest is {largest:.3g}, and env.normalize_obs=false passes it to the networks unscaled; set "
                "env.normalize_obs=true, or scale the observations"
            )
    return holds(f"the largest is {largest:.3g}")


def check_finite(target: EnvUnderTest) -> CheckResult:
    for number, output in enumerate(target.nonempty_trace.outputs):
        obs = to_vector(output.obs_copy)
        nonfinite = np.flatnonzero(~np.isfinite(obs))
        if nonfinite.size:
            return fails(
                f"output {number}: component {nonfinite[0]} of the observation is {obs[nonfinite[0]]}"
            )
        if isinstance(output.reward, numbers.Real) and not np.isfinite(float(output.reward)):
            return fails(f"output {number}: the reward is {output.reward}")
    return holds(f"{len(target.nonempty_trace.outputs):,} outputs")


def check_rewards(target: EnvUnderTest) -> CheckResult:
    rewards = [output.reward for output in target.nonempty_trace.outputs if not output.is_reset]
    if not rewards:
        raise Inconclusive("no step was taken")
    for number, value in enumerate(rewards):
        one_number = isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "fiub"
        if not isinstance(value, numbers.Real) and not one_number:
            shape = f" of shape {list(value.shape)}" if isinstance(value, np.ndarray) else ""
            return fails(f"step {number + 1}: {value!r}, a {type(value).__name__}{shape}")
    values = np.array([np.asarray(value).item() for value in rewards], dtype=np.float64)
    return holds(f"{np.nanmin(values):.4g} to {np.nanmax(values):.4g}, mean {np.nanmean(values):.4g}")


def check_flags(target: EnvUnderTest) -> CheckResult:
    counts = {"terminated": 0, "truncated": 0}
    for number, output in enumerate(target.nonempty_trace.outputs):
        for name in counts:
            value = getattr(output, name)
            if not isinstance(value, bool | np.bool_):
                return fails(f"output {number}: {name} is {value!r}, a {type(value).__name__}")
            counts[name] += bool(value)
    return holds(f"{counts['terminated']} terminations, {counts['truncated']} truncations")


def check_action_masks(target: EnvUnderTest) -> CheckResult:
    sizes = choice_sizes(target.specs.action)
    masked = [(i, each) for i, each in enumerate(target.nonempty_trace.outputs) if "action_mask" in each.info]
    if not masked:
        return holds("no mask: every action is allowed")
    if not sizes:
        return fails(f'info["action_mask"] for actions {_describe_spec(target.specs.action)}')
    for number, output in masked:
        mask = output.info["action_mask"]
        if problem := mask_problem(mask, sizes):
            return fails(f"output {number}: the mask {problem}")
        if not output.ended and no_action_allowed(read_mask(mask)[None], sizes)[0]:
            return fails(f"output {number}: the mask forbids every action, and the episode has not ended")
    return holds(f"{len(masked):,} masks of {sum(sizes)}")


def check_action_bounds(target: EnvUnderTest) -> CheckResult:
    spec, space = target.specs.action, target.env.action_space
    if not isinstance(spec, Continuous) or not isinstance(space, spaces.Box):
        return holds(_describe_spec(spec))
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    empty = np.flatnonzero(~(low < high))
    if empty.size:
        i = int(empty[0])
        return fails(f"component {i} is in [{low[i]:g}, {high[i]:g}]")
    unbounded = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    if unbounded.size:
        return holds(
            f"component {unbounded[0]} is unbounded and passed as sampled (policy.continuous=squashed_gaussian needs "
            "bounds)"
        )
    tiny = np.flatnonzero(((low > 0) & (low < _SMALLEST_BOUND)) | ((high < 0) & (high > -_SMALLEST_BOUND)))
    if tiny.size:
        i = int(tiny[0])
        return fails(
            f"component {i} is in [{low[i]:g}, {high[i]:g}]: a bound next to 0 is likely the smallest number of a type "
            "by mistake, and actions beyond it become 0"
        )
    reached = np.maximum(np.minimum(high, _NORMAL_RANGE) - np.maximum(low, -_NORMAL_RANGE), 0.0)
    inside = np.array([_normal_cdf(b) - _normal_cdf(a) for a, b in zip(low, high, strict=True)])
    poor = np.flatnonzero((reached < _MIN_COVERAGE * (high - low)) | (inside < _MIN_COVERAGE))
    if poor.size:
        i = int(poor[0])
        return unknown(
            f"component {i} is in [{low[i]:g}, {high[i]:g}]: standard normal actions, as of an initial Gaussian "
            f"policy, reach {reached[i] / (high[i] - low[i]):.2g} of that range and lie in it with probability "
            f"{inside[i]:.2g}; rescale the actions to [-1, 1], or set policy.continuous=squashed_gaussian"
        )
    return holds(
        f"[{low.min():g}, {high.max():g}]; pgx clips to them; beyond, the environment {_beyond_bounds(target)}"
    )


def _normal_cdf(x: float) -> float:
    """Return the cumulative distribution function of the standard normal distribution."""
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def _beyond_bounds(target: EnvUnderTest) -> str:
    """Describe what the environment does with actions outside of their bounds."""
    space = target.env.action_space
    assert isinstance(space, spaces.Box)
    with target.fresh_env() as env:
        reset_env(env, seed=3)
        at_bound = step_env(env, space.high)
        reset_env(env, seed=3)
        try:
            beyond = step_env(env, (space.high + (space.high - space.low)).astype(space.dtype))
        except Exception as error:
            return describe_error(error).replace("raised", "raises", 1)
    return "uses them unclipped" if difference(at_bound, beyond) else "clips them"


def check_repeatable(target: EnvUnderTest) -> CheckResult:
    """Check that a seed gives the same outputs in a used environment and in a new one."""
    used = run_random_policy(target.env, target.specs, 1, _COMPARED_STEPS, CHECK_SECONDS / 2)
    again = run_random_policy(target.env, target.specs, 1, _COMPARED_STEPS, CHECK_SECONDS / 2)
    with target.fresh_env() as env:
        new = run_random_policy(env, target.specs, 1, _COMPARED_STEPS, CHECK_SECONDS / 2)
    for other, where in ((again, "after a second reset with the same seed"), (new, "in a new environment")):
        for number, (one, two) in enumerate(zip(used.outputs, other.outputs, strict=False)):
            if what := difference(one, two):
                return fails(f"output {number}: another {what} {where}")
    compared = min(len(trace.outputs) for trace in (used, again, new))
    if compared < 2:
        raise Inconclusive("no step was taken")
    return holds(f"{compared - 1:,} outputs, after a second reset and in a new environment")


def check_seed_is_used(target: EnvUnderTest) -> CheckResult:
    prefixes = target.cached(seeded_prefixes)
    different = len(set(prefixes))
    if different > 1:
        return holds(f"{different} of {len(prefixes)} seeds begin differently")
    if len(set(target.cached(unseeded_prefixes))) > 1:
        return fails(f"{len(prefixes)} seeds begin equally, episodes after them do not: the seed is not used")
    return unknown(f"{len(prefixes)} seeds begin equally: a deterministic task, or one that ignores its seed")


def check_unseeded_resets(target: EnvUnderTest) -> CheckResult:
    """Check that a reset without a seed continues the random stream."""
    prefixes = target.cached(unseeded_prefixes)
    different = len(set(prefixes))
    if different > 1:
        return holds(f"{different} of {len(prefixes)} resets without a seed begin differently")
    if len(set(target.cached(seeded_prefixes))) > 1:
        return fails(f"{len(prefixes)} resets without a seed begin equally, while different seeds do not")
    return unknown(f"{len(prefixes)} resets begin equally: a deterministic task")


def seeded_prefixes(target: EnvUnderTest) -> list[bytes]:
    """Return the beginnings of episodes from distant seeds."""
    return _episode_prefixes(target, [_SEED_DISTANCE * i for i in range(_EPISODES)])


def unseeded_prefixes(target: EnvUnderTest) -> list[bytes]:
    """Return the beginnings of successive episodes after one that was seeded."""
    return _episode_prefixes(target, [5, *[None] * _EPISODES])[1:]


def _episode_prefixes(target: EnvUnderTest, seeds: list[int | None]) -> list[bytes]:
    """Return the beginnings of episodes under equal actions: at least three, more while there is time."""
    end = time.perf_counter() + CHECK_SECONDS / 2
    steps = _PREFIX_STEPS
    if target.step_seconds > 0:  # fewer steps of a slow environment
        steps = max(2, min(_PREFIX_STEPS, int(CHECK_SECONDS / 6 / target.step_seconds)))
    found: list[bytes] = []
    for seed in seeds:
        if len(found) > 2 and time.perf_counter() > end:
            break
        found.append(_episode_prefix(target, seed, steps))
    return found


def _episode_prefix(target: EnvUnderTest, seed: int | None, steps: int) -> bytes:
    env, specs = target.env, target.specs
    rng, output = np.random.default_rng(0), reset_env(env, seed)
    parts = []
    for _ in range(steps):
        parts.append(np.asarray(output.obs_copy).tobytes() + repr((output.reward, output.ended)).encode())
        if output.ended:
            break
        mask = action_mask_of(output.info, specs.action)
        parts.append(b"" if mask is None else mask.tobytes())
        output = step_env(env, specs.to_env_action(random_actions(rng, specs.action, 1, mask))[0])
    return b"".join(parts)
