"""What the trainer takes for granted of an environment, each assumption a function that looks whether it holds."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pgx.envs.checks import actions, observations, rows, seeds, single
from pgx.envs.checks.subject import (
    CheckRequest,
    CheckResult,
    EnvUnderTest,
    Inconclusive,
    describe_error,
    fails,
    holds,
    unknown,
)

__all__ = [
    "CHECKS",
    "CheckRequest",
    "CheckResult",
    "EnvUnderTest",
    "Timing",
    "fails",
    "holds",
    "run_check",
    "timing",
    "unknown",
]

CHECKS: dict[str, Callable[[EnvUnderTest], CheckResult]] = {
    "it can be made": single.made,
    "policies take its spaces": single.spaces_taken,
    "reset and step answer as Gymnasium's do": single.interface,
    "observations have the form of their space": observations.form,
    "observations lie in their bounds": observations.bounds,
    "observations and rewards are finite": observations.finite,
    "observations suit networks": observations.magnitude,
    "a reward is one real number": observations.reward,
    "terminated and truncated are truth values": observations.flags,
    "episodes end": single.ends,
    "the last observation is the episode's own": single.last_observation,
    "action masks can be obeyed": actions.action_mask,
    "actions have bounds": actions.action_bounds,
    "observations stay what they were": single.unshared,
    "nothing is drawn": single.drawing,
    "the same seed gives the same bits": seeds.repeatable,
    "another seed gives another episode": seeds.seeded,
    "the next episode is another": seeds.continued,
    "a worker process can make it": rows.in_worker,
    "all environments of a run answer": rows.rows,
    "after an end comes a reset": rows.resets,
    "the same seed gives all the same bits": rows.rows_repeatable,
    "environments differ from each other": rows.distinct,
}


@dataclass(frozen=True)
class Timing:
    """How long things take."""

    step_ms: float  # median, of one environment
    slowest_ms: float  # of its steps
    reset_ms: float  # median
    steps_per_second: float | None  # of all environments of a run on their backend; None: they did not answer


def run_check(assumption: str, subject: EnvUnderTest) -> CheckResult:
    """Whether one of CHECKS holds.

    What an environment raises while that is looked at fails it, unless the environment is known to raise anyway.
    """
    try:
        return CHECKS[assumption](subject)
    except Inconclusive as why:
        return unknown(str(why))
    except Exception as error:
        return (
            unknown(f"it {describe_error(error)}") if subject.fails_on_steps else fails(describe_error(error))
        )


def timing(subject: EnvUnderTest) -> Timing | None:
    """What was measured on the way; None: it was never stepped."""
    try:
        trace = subject.played
    except Inconclusive:
        return None
    if not trace.step_seconds:
        return None
    all_together: float | None = None
    with suppress(Exception):  # the verdicts say which
        all_together = rows.steps_per_second(subject)
    steps, resets = trace.step_seconds, trace.reset_seconds
    return Timing(
        1e3 * statistics.median(steps), 1e3 * max(steps), 1e3 * statistics.median(resets), all_together
    )


def run_checks(subject: EnvUnderTest) -> Iterator[tuple[str, CheckResult]]:
    """Every assumption with its verdict."""
    for assumption in CHECKS:
        yield assumption, run_check(assumption, subject)
