"""Checks of the N environments of a run on the backend that the run would use."""

import math
import time
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec
from pgx.envs import process_backend
from pgx.envs.checks.env_under_test import (
    CHECK_SECONDS,
    MAX_OBS_BYTES,
    CheckResult,
    EnvUnderTest,
    Inconclusive,
    bit_equal,
    fails,
    holds,
    random_actions,
    unknown,
)
from pgx.envs.checks.single_env import seeded_prefixes
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.make import make_envs
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.vector import AnyArray, Step, VectorEnv, step

_STEPS = 500
_COMPARED_STEPS = 100  # compared bit by bit


@dataclass
class VectorTrace:
    """Outputs of N environments for random actions."""

    first_obs: AnyArray  # [N, ...] from reset
    steps: list[Step]
    masks: list[NDArray[np.bool_] | None]  # before each step
    seconds: float  # duration of all steps


@dataclass
class _VectorTraces:
    """Traces of the environments of a run."""

    full: VectorTrace
    repeated: VectorTrace  # same seed, fewer steps
    same_actions: VectorTrace  # all environments take equal actions


def _run_random_policy(
    envs: VectorEnv, spec: ActionSpec, seed: int, steps: int, seconds: float, same_actions: bool
) -> VectorTrace:
    """Reset and take random actions; with `same_actions`, equal ones in all environments unless there are masks."""
    first_obs, rng = envs.reset(seed), np.random.default_rng(seed)
    trace, bytes_left, started = VectorTrace(first_obs, [], [], 0.0), MAX_OBS_BYTES, time.perf_counter()
    while len(trace.steps) < steps and trace.seconds < seconds and bytes_left > 0:
        mask = envs.action_mask
        if same_actions and mask is None:
            action = np.repeat(random_actions(rng, spec, 1, None), envs.num_envs, axis=0)
        else:
            action = random_actions(rng, spec, envs.num_envs, mask)
        trace.masks.append(mask)
        trace.steps.append(step(envs, action))
        bytes_left -= trace.steps[-1].obs.nbytes
        trace.seconds = time.perf_counter() - started
    return trace


def _run_traces(target: EnvUnderTest) -> _VectorTraces:
    """Step the environments that a run would have.

    Raises:
        Inconclusive: a step of all environments takes longer than a trace may.
    """
    spec, request, choice = target.specs.action, target.request, target.choice
    sequential_steps = math.ceil(
        request.num_envs / (1 if choice.name == "gymnasium" else request.num_threads)
    )
    if choice.name != "envpool" and sequential_steps * target.step_seconds > CHECK_SECONDS:
        raise Inconclusive(
            f"one step takes {target.step_seconds:.2g} s, one of all {request.num_envs} environments "
            f"{sequential_steps * target.step_seconds:.2g} s"
        )
    envs = make_envs(
        choice,
        request.id,
        request.num_envs,
        request.kwargs,
        request.num_threads,
        request.worker_timeout,
        NO_SHAPING,
    )
    with closing(envs):
        return _VectorTraces(
            full=_run_random_policy(envs, spec, 7, _STEPS, CHECK_SECONDS, same_actions=False),
            repeated=_run_random_policy(envs, spec, 7, _COMPARED_STEPS, CHECK_SECONDS, same_actions=False),
            same_actions=_run_random_policy(envs, spec, 11, 30, CHECK_SECONDS / 2, same_actions=True),
        )


def _traces(target: EnvUnderTest) -> _VectorTraces:
    try:
        return target.cached(_run_traces)
    except (RunError, UserError) as error:
        raise Inconclusive("the run's environments failed") from error


def steps_per_second(target: EnvUnderTest) -> float:
    """Return the environment steps per second of all environments together."""
    trace = target.cached(_run_traces).full
    return len(trace.steps) * target.request.num_envs / trace.seconds


def check_worker_process(target: EnvUnderTest) -> CheckResult:
    """Check that an environment gives the same outputs here and in a worker process."""
    request, spec = target.request, target.specs.action
    with closing(GymnasiumVector(request.id, 1, request.kwargs, first_index=0)) as here:
        one = _run_random_policy(here, spec, 3, _COMPARED_STEPS, CHECK_SECONDS / 2, same_actions=False)
    try:
        there = process_backend.ProcessVector(request.id, 1, request.kwargs, 1, request.worker_timeout)
        with closing(there):
            two = _run_random_policy(there, spec, 3, _COMPARED_STEPS, CHECK_SECONDS / 2, same_actions=False)
    except (RunError, UserError) as error:
        return fails(str(error))
    pairs = zip(one.steps, two.steps, strict=False)
    if not bit_equal(one.first_obs, two.first_obs) or not all(bit_equal(a.obs, b.obs) for a, b in pairs):
        return fails("its observations differ there")
    return holds(f"{min(len(one.steps), len(two.steps))} steps are equal there")


def check_rows(target: EnvUnderTest) -> CheckResult:
    """Check that the run's environments return N finite rows."""
    n = target.request.num_envs
    try:
        trace = target.cached(_run_traces).full
    except (RunError, UserError) as error:
        return fails(str(error))
    for number, result in enumerate(trace.steps):
        lengths = [len(column) for column in result.columns.values()]
        if set(lengths) != {n}:
            return fails(f"step {number + 1}: {lengths} rows, expected {n} of each")
        for what, column in (("observation", result.obs), ("reward", result.reward)):
            wrong = np.flatnonzero(~np.isfinite(column.reshape(n, -1)).all(axis=1))
            if wrong.size:
                return fails(f"step {number + 1}: the {what} of environment {wrong[0]} is not finite")
    choice = target.choice
    return holds(f"{choice.name} ({choice.reason}), {n} x {len(trace.steps)} steps")


def check_reset_rows(target: EnvUnderTest) -> CheckResult:
    return reset_rows_result(_traces(target).full)


def reset_rows_result(trace: VectorTrace) -> CheckResult:
    """Check that the row of an end has the true successor, and that the next row only resets."""
    ended = [
        (t, i)
        for t, result in enumerate(trace.steps[:-1])
        for i in np.flatnonzero(result.terminated | result.truncated)
    ]
    if not ended:
        raise Inconclusive("no episode ended")
    equal = 0
    for t, i in ended:
        last, after = trace.steps[t], trace.steps[t + 1]
        if after.reward[i] != 0 or after.terminated[i] or after.truncated[i]:
            return fails(f"step {t + 2}: the reset row of environment {i} has a reward or an end")
        equal += bit_equal(last.obs[i], after.obs[i])
    changes = any(not bit_equal(trace.first_obs[0], result.obs[0]) for result in trace.steps)
    if equal == len(ended) and changes:
        return fails(f"at {equal} of {equal} ends the last observation is the first of the next episode")
    return holds(f"{len(ended):,} ends")


def check_rows_repeatable(target: EnvUnderTest) -> CheckResult:
    traces = _traces(target)
    full, repeated = traces.full, traces.repeated
    again = "after a second reset with the same seed"
    if not bit_equal(full.first_obs, repeated.first_obs):
        return fails(f"reset: another observation {again}")
    for number, (one, two) in enumerate(zip(full.steps, repeated.steps, strict=False)):
        for name, a in one.columns.items():
            b = two.columns[name]
            if not bit_equal(a, b):
                which = np.flatnonzero([not bit_equal(x, y) for x, y in zip(a, b, strict=True)])
                what = {"obs": "observation"}.get(name, name)
                return fails(f"step {number + 1}: another {what} in environment {which[0]} {again}")
    return holds(f"{len(repeated.steps)} steps")


def check_distinct(target: EnvUnderTest) -> CheckResult:
    """Check that the environments of a run differ under equal actions."""
    n = target.request.num_envs
    trace = _traces(target).same_actions
    if n == 1:
        raise Inconclusive("there is one environment")
    masked = any(mask is not None for mask in trace.masks)
    compared = [trace.first_obs] if masked else [trace.first_obs, *(result.obs for result in trace.steps)]
    different = len({b"".join(column[i].tobytes() for column in compared) for i in range(n)})
    if different > 1:
        return holds(f"{different} of {n} differ")
    if not masked and len(set(target.cached(seeded_prefixes))) > 1:
        return fails(f"all {n} are equal, while more distant seeds are not")
    return unknown(f"all {n} begin equally")
