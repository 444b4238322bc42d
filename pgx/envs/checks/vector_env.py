"""What the trainer assumes of N environments on the backend that it would have."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec
from pgx.envs import process_backend
from pgx.envs.checks.env_under_test import (
    MAX_OBS_BYTES,
    SECONDS,
    CheckResult,
    EnvUnderTest,
    Inconclusive,
    draw,
    fails,
    holds,
    same_bits,
    unknown,
)
from pgx.envs.checks.single_env import seeds_of
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.make import make_envs
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.vector import Array, Step, VectorEnv, step

STEPS = 500
REPEATED = 100  # steps of which each bit is compared


@dataclass
class VectorTrace:
    """What N environments answered."""

    first: Array  # [N, ...] of the reset
    steps: list[Step]
    masks: list[NDArray[np.bool_] | None]  # before each step
    seconds: float  # that the steps took


def make_rows(subject: EnvUnderTest) -> VectorEnv:
    """The environments that a run would have."""
    request = subject.request
    return make_envs(
        subject.choice,
        request.id,
        request.num_envs,
        request.kwargs,
        request.num_threads,
        request.worker_timeout,
        NO_SHAPING,
    )


@contextmanager
def closing_rows(envs: VectorEnv) -> Iterator[VectorEnv]:
    try:
        yield envs
    finally:
        envs.close()


def run_vector(
    envs: VectorEnv, spec: ActionSpec, seed: int, steps: int, seconds: float, alike: bool
) -> VectorTrace:
    """Random actions from a reset on; `alike`: the same for all environments, where no mask forbids it."""
    first, rng = envs.reset(seed), np.random.default_rng(seed)
    rows, room, started = VectorTrace(first, [], [], 0.0), MAX_OBS_BYTES, time.perf_counter()
    while len(rows.steps) < steps and rows.seconds < seconds and room > 0:
        mask = envs.action_mask
        if alike and mask is None:
            action = np.repeat(draw(rng, spec, 1, None), envs.num_envs, axis=0)
        else:
            action = draw(rng, spec, envs.num_envs, mask)
        rows.masks.append(mask)
        rows.steps.append(step(envs, action))
        room -= rows.steps[-1].obs.nbytes
        rows.seconds = time.perf_counter() - started
    return rows


def played(subject: EnvUnderTest) -> tuple[VectorTrace, VectorTrace, VectorTrace]:
    """A look at all environments; the same again, shorter; and with the same actions for all.

    Raises:
        Untold: a step of all environments takes longer than a look may.
    """
    spec, request, choice = subject.specs.action, subject.request, subject.choice
    in_turn = math.ceil(request.num_envs / (1 if choice.name == "gymnasium" else request.num_threads))
    if choice.name != "envpool" and in_turn * subject.step_seconds > SECONDS:
        raise Inconclusive(
            f"one step takes {subject.step_seconds:.2g} s, one of all {request.num_envs} environments "
            f"{in_turn * subject.step_seconds:.2g} s"
        )
    with closing_rows(make_rows(subject)) as envs:
        return (
            run_vector(envs, spec, 7, STEPS, SECONDS, alike=False),
            run_vector(envs, spec, 7, REPEATED, SECONDS, alike=False),
            run_vector(envs, spec, 11, 30, SECONDS / 2, alike=True),
        )


def rows(subject: EnvUnderTest) -> CheckResult:
    """Shapes, types and numbers of what reaches the trainer."""
    n = subject.request.num_envs
    try:
        seen, _, _ = subject.cached(played)
    except (RunError, UserError) as error:
        return fails(str(error))
    for number, took in enumerate(seen.steps):
        lengths = [len(column) for column in took.columns.values()]
        if set(lengths) != {n}:
            return fails(f"step {number + 1}: {lengths} rows, expected {n} of each")
        for what, column in (("observation", took.obs), ("reward", took.reward)):
            wrong = np.flatnonzero(~np.isfinite(column.reshape(n, -1)).all(axis=1))
            if wrong.size:
                return fails(f"step {number + 1}: the {what} of environment {wrong[0]} is not finite")
    choice = subject.choice
    return holds(f"{choice.name} ({choice.reason}), {n} x {len(seen.steps)} steps")


def resets(subject: EnvUnderTest) -> CheckResult:
    seen, _, _ = _traces(subject)
    return after_ends(seen)


def after_ends(seen: VectorTrace) -> CheckResult:
    """The row of an end is that of the successor; the one after it only resets."""
    ended = [
        (t, i)
        for t, took in enumerate(seen.steps[:-1])
        for i in np.flatnonzero(took.terminated | took.truncated)
    ]
    if not ended:
        raise Inconclusive("no episode ended")
    alike = 0
    for t, i in ended:
        last, after = seen.steps[t], seen.steps[t + 1]
        if after.reward[i] != 0 or after.terminated[i] or after.truncated[i]:
            return fails(f"step {t + 2}: environment {i} was only reset, and has a reward or an end")
        alike += same_bits(last.obs[i], after.obs[i])
    moves = any(not same_bits(seen.first[0], took.obs[0]) for took in seen.steps)
    if alike == len(ended) and moves:
        return fails(f"at {alike} of {alike} ends the last observation is the first of the next episode")
    return holds(f"{len(ended):,} ends")


def rows_repeatable(subject: EnvUnderTest) -> CheckResult:
    seen, again, _ = _traces(subject)
    if not same_bits(seen.first, again.first):
        return fails("reset: another observation when seeded again")
    for number, (one, two) in enumerate(zip(seen.steps, again.steps, strict=False)):
        for name, a in one.columns.items():
            b = two.columns[name]
            if not same_bits(a, b):
                which = np.flatnonzero([not same_bits(x, y) for x, y in zip(a, b, strict=True)])
                what = {"obs": "observation"}.get(name, name)
                return fails(f"step {number + 1}: another {what} in environment {which[0]} when seeded again")
    return holds(f"{len(again.steps)} steps")


def distinct(subject: EnvUnderTest) -> CheckResult:
    """Environments of one run do not live the same life."""
    n = subject.request.num_envs
    _, _, seen = _traces(subject)
    if n == 1:
        raise Inconclusive("there is one environment")
    masked = any(mask is not None for mask in seen.masks)
    compared = [seen.first] if masked else [seen.first, *(took.obs for took in seen.steps)]
    lives = {b"".join(column[i].tobytes() for column in compared) for i in range(n)}
    if len(lives) > 1:
        return holds(f"{len(lives)} of {n} differ")
    if not masked and len(set(subject.cached(seeds_of))) > 1:
        return fails(f"all {n} are alike, while seeds that are further apart are not")
    return unknown(f"all {n} begin alike")


def _traces(subject: EnvUnderTest) -> tuple[VectorTrace, VectorTrace, VectorTrace]:
    try:
        return subject.cached(played)
    except (RunError, UserError) as error:
        raise Inconclusive("the environments did not answer") from error


def in_worker(subject: EnvUnderTest) -> CheckResult:
    """Made in a process of its own it is the same environment."""
    request, spec = subject.request, subject.specs.action
    here = GymnasiumVector(request.id, 1, request.kwargs, first=0)
    with closing_rows(here):
        one = run_vector(here, spec, 3, REPEATED, SECONDS / 2, alike=False)
    try:
        there = process_backend.ProcessVector(request.id, 1, request.kwargs, 1, request.worker_timeout)
        with closing_rows(there):
            two = run_vector(there, spec, 3, REPEATED, SECONDS / 2, alike=False)
    except (RunError, UserError) as error:
        return fails(str(error))
    pairs = zip(one.steps, two.steps, strict=False)
    if not same_bits(one.first, two.first) or not all(same_bits(a.obs, b.obs) for a, b in pairs):
        return fails("it answers otherwise there")
    return holds(f"{min(len(one.steps), len(two.steps))} steps are the same there")


def steps_per_second(subject: EnvUnderTest) -> float:
    """Of all environments together."""
    seen, _, _ = subject.cached(played)
    return len(seen.steps) * subject.request.num_envs / seen.seconds
