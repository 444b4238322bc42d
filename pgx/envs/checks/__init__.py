"""What the trainer takes for granted of an environment, each assumption a function that looks whether it holds."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pgx.envs.checks import actions, numbers_shown, rows, seeds, single
from pgx.envs.checks.subject import Asked, Subject, Untold, Verdict, fails, holds, raised, untold

__all__ = ["CHECKS", "Asked", "Pace", "Subject", "Verdict", "fails", "holds", "judge", "pace", "untold"]

CHECKS: dict[str, Callable[[Subject], Verdict]] = {
    "it can be made": single.made,
    "policies take its spaces": single.spaces_taken,
    "reset and step answer as Gymnasium's do": single.interface,
    "observations have the form of their space": numbers_shown.form,
    "observations lie in their bounds": numbers_shown.bounds,
    "observations and rewards are finite": numbers_shown.finite,
    "observations suit networks": numbers_shown.magnitude,
    "a reward is one real number": numbers_shown.reward,
    "terminated and truncated are truth values": numbers_shown.flags,
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
    "environments differ from each other": rows.apart,
}


@dataclass(frozen=True)
class Pace:
    """How long things take."""

    step_ms: float  # median, of one environment
    slowest_ms: float  # of its steps
    reset_ms: float  # median
    steps_per_second: float | None  # of all environments of a run on their backend; None: they did not answer


def judge(assumption: str, subject: Subject) -> Verdict:
    """Whether one of CHECKS holds.

    What an environment raises while that is looked at fails it, unless the environment is known to raise anyway.
    """
    try:
        return CHECKS[assumption](subject)
    except Untold as why:
        return untold(str(why))
    except Exception as error:
        return untold(f"it {raised(error)}") if subject.raises else fails(raised(error))


def pace(subject: Subject) -> Pace | None:
    """What was measured on the way; None: it was never stepped."""
    try:
        recording = subject.played
    except Untold:
        return None
    if not recording.step_seconds:
        return None
    all_together: float | None = None
    with suppress(Exception):  # the verdicts say which
        all_together = rows.steps_per_second(subject)
    steps, resets = recording.step_seconds, recording.reset_seconds
    return Pace(
        1e3 * statistics.median(steps), 1e3 * max(steps), 1e3 * statistics.median(resets), all_together
    )


def judged(subject: Subject) -> Iterator[tuple[str, Verdict]]:
    """Every assumption with its verdict."""
    for assumption in CHECKS:
        yield assumption, judge(assumption, subject)
