"""What the trainer assumes of chance: that it comes from the seed, all of it, and goes on from episode to episode."""

import time

import numpy as np

from pgx.envs.checks.subject import (
    SECONDS,
    CheckResult,
    EnvUnderTest,
    Inconclusive,
    Single,
    Specs,
    allowed,
    draw,
    fails,
    holds,
    reset,
    run_random_policy,
    same,
    step,
    unknown,
)

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
