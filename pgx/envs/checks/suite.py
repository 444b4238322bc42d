"""All checks of an environment, and the child process that runs them.

An environment that hangs or crashes ends the child process only.
"""

import statistics
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.envs.checks import single_env, vector_env
from pgx.envs.checks.env_under_test import (
    CheckResult,
    EnvUnderTest,
    Inconclusive,
    describe_error,
    fails,
    unknown,
)
from pgx.envs.make import choose_backend
from pgx.envs.rewards.spec import NO_SHAPING

CHECKS: dict[str, Callable[[EnvUnderTest], CheckResult]] = {
    "it can be made": single_env.made,
    "policies take its spaces": single_env.spaces_taken,
    "reset and step answer as Gymnasium's do": single_env.interface,
    "observations have the form of their space": single_env.form,
    "observations lie in their bounds": single_env.bounds,
    "observations and rewards are finite": single_env.finite,
    "observations suit networks": single_env.magnitude,
    "a reward is one real number": single_env.reward,
    "terminated and truncated are truth values": single_env.flags,
    "episodes end": single_env.ends,
    "the last observation is the episode's own": single_env.last_observation,
    "action masks can be obeyed": single_env.action_mask,
    "actions have bounds": single_env.action_bounds,
    "observations stay what they were": single_env.unshared,
    "nothing is drawn": single_env.drawing,
    "the same seed gives the same bits": single_env.repeatable,
    "another seed gives another episode": single_env.seeded,
    "the next episode is another": single_env.continued,
    "a worker process can make it": vector_env.in_worker,
    "all environments of a run answer": vector_env.rows,
    "after an end comes a reset": vector_env.resets,
    "the same seed gives all the same bits": vector_env.rows_repeatable,
    "environments differ from each other": vector_env.distinct,
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
        all_together = vector_env.steps_per_second(subject)
    steps, resets = trace.step_seconds, trace.reset_seconds
    return Timing(
        1e3 * statistics.median(steps), 1e3 * max(steps), 1e3 * statistics.median(resets), all_together
    )


@dataclass(frozen=True)
class BackendUnavailable:
    """What was asked for cannot be had, in the words of a UserError."""

    problem: str


@dataclass(frozen=True)
class CheckStarted:
    """An assumption is about to be looked at; its verdict follows."""

    assumption: str


@dataclass(frozen=True)
class ChecksFinished:
    """All was looked at."""

    spaces: tuple[ObsSpec, ActionSpec] | None  # None: no policy takes them
    timing: Timing | None


def serve(channel: "Connection[Any, Any]") -> None:
    """Look at the environment that the parent names, and tell it of each assumption.

    Args:
        channel: to the parent.
    """
    _look(channel, EnvUnderTest(channel.recv()))


def _look(channel: "Connection[Any, Any]", subject: EnvUnderTest) -> None:
    for number, assumption in enumerate(CHECKS):
        channel.send(CheckStarted(assumption))
        channel.send(run_check(assumption, subject))
        request = subject.request
        if number == 0 and request.backend != "auto":
            try:  # what was named and cannot do it is no fault of the environment's
                choose_backend(
                    request.id,
                    request.backend,
                    request.kwargs,
                    request.num_envs,
                    request.num_threads,
                    NO_SHAPING,
                )
            except UserError as error:
                channel.send(BackendUnavailable(str(error)))
                return
    spaces = None
    if not isinstance(subject.env_or_problem, str) and not isinstance(subject.specs_or_problem, str):
        spaces = subject.specs_or_problem.obs, subject.specs_or_problem.action
    channel.send(ChecksFinished(spaces, timing(subject)))
    subject.close()
