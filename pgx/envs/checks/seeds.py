"""What the trainer assumes of chance: that it comes from the seed, all of it, and goes on from episode to episode."""

import time

import numpy as np

from pgx.envs.checks.subject import (
    SECONDS,
    Single,
    Specs,
    Subject,
    Untold,
    Verdict,
    allowed,
    draw,
    fails,
    holds,
    play,
    reset,
    same,
    step,
    untold,
)

REPEATED = 300  # steps of which each bit is compared
GLIMPSE = 30  # steps by which two beginnings are told apart
BEGINNINGS = 8
APART = 10_007  # between seeds, which a run's environments have one after another


def repeatable(subject: Subject) -> Verdict:
    """In an environment that has been played, and in a new one."""
    used = play(subject.env, subject.specs, 1, REPEATED, SECONDS / 2)
    again = play(subject.env, subject.specs, 1, REPEATED, SECONDS / 2)
    with subject.another() as env:
        new = play(env, subject.specs, 1, REPEATED, SECONDS / 2)
    for other, which in ((again, "seeded again"), (new, "made anew")):
        for number, (one, two) in enumerate(zip(used.answers, other.answers, strict=False)):
            if what := same(one, two):
                return fails(f"answer {number}: another {what} when {which}")
    compared = min(len(recording.answers) for recording in (used, again, new))
    if compared < 2:
        raise Untold("no step was taken")
    return holds(f"{compared - 1:,} answers, seeded again and made anew")


def seeded(subject: Subject) -> Verdict:
    """Other seeds, other episodes."""
    beginnings = subject.once(seeds_of)
    different = len(set(beginnings))
    if different > 1:
        return holds(f"{different} of {len(beginnings)} seeds begin differently")
    if len(set(subject.once(streams_of))) > 1:
        return fails(f"{len(beginnings)} seeds begin alike, episodes after them do not: the seed is not used")
    return untold(f"{len(beginnings)} seeds begin alike: a task without chance, or one that ignores its seed")


def continued(subject: Subject) -> Verdict:
    """A reset without a seed goes on with the stream."""
    beginnings = subject.once(streams_of)
    different = len(set(beginnings))
    if different > 1:
        return holds(f"{different} of {len(beginnings)} resets without a seed begin differently")
    if len(set(subject.once(seeds_of))) > 1:
        return fails(f"{len(beginnings)} resets without a seed begin alike, while seeds do not")
    return untold(f"{len(beginnings)} resets begin alike: a task without chance")


def seeds_of(subject: Subject) -> list[bytes]:
    """Beginnings of episodes from seeds far apart."""
    return glimpses(subject, [APART * i for i in range(BEGINNINGS)])


def streams_of(subject: Subject) -> list[bytes]:
    """Beginnings of episodes one after another, the first of them seeded."""
    return glimpses(subject, [5, *[None] * BEGINNINGS])[1:]


def glimpses(subject: Subject, seeds: list[int | None]) -> list[bytes]:
    """How episodes begin under the same actions; at least two of them, more while there is time.

    Raises:
        Untold: there is but one.
    """
    end = time.perf_counter() + SECONDS / 2
    steps = GLIMPSE
    if subject.step_seconds > 0:  # a slow environment shows fewer
        steps = max(2, min(GLIMPSE, int(SECONDS / 6 / subject.step_seconds)))
    seen: list[bytes] = []
    for seed in seeds:
        if len(seen) > 2 and time.perf_counter() > end:
            break
        seen.append(_glimpse(subject.env, subject.specs, seed, steps))
    return seen


def _glimpse(env: Single, specs: Specs, seed: int | None, steps: int) -> bytes:
    rng, answer = np.random.default_rng(0), reset(env, seed)
    said = []
    for _ in range(steps):
        said.append(np.asarray(answer.kept).tobytes() + repr((answer.reward, answer.ended)).encode())
        if answer.ended:
            break
        mask = allowed(answer.info, specs.action)
        said.append(b"" if mask is None else mask.tobytes())
        answer = step(env, specs.write(draw(rng, specs.action, 1, mask))[0])
    return b"".join(said)
