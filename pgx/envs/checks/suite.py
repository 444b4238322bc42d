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

# The names are statements that hold, fail or are unknown; docs/environments.md says what depends on each.
CHECKS: dict[str, Callable[[EnvUnderTest], CheckResult]] = {
    "it can be created": single_env.check_created,
    "policies support its spaces": single_env.check_spaces,
    "reset and step return Gymnasium's tuples": single_env.check_interface,
    "observations have the shape and dtype of their space": single_env.check_observation_form,
    "observations lie in their bounds": single_env.check_observation_bounds,
    "observations and rewards are finite": single_env.check_finite,
    "observations have a suitable magnitude": single_env.check_magnitude,
    "rewards are real numbers": single_env.check_rewards,
    "terminated and truncated are booleans": single_env.check_flags,
    "episodes end": single_env.check_ends,
    "last observations belong to the ended episode": single_env.check_last_observations,
    "action masks are valid": single_env.check_action_masks,
    "action bounds are usable": single_env.check_action_bounds,
    "returned observations are not overwritten": single_env.check_not_overwritten,
    "steps do not render": single_env.check_no_rendering,
    "equal seeds give equal episodes": single_env.check_repeatable,
    "different seeds give different episodes": single_env.check_seed_is_used,
    "resets without a seed give different episodes": single_env.check_unseeded_resets,
    "a worker process can create it": vector_env.check_worker_process,
    "the run's environments return valid rows": vector_env.check_rows,
    "the step after an end only resets": vector_env.check_reset_rows,
    "equal seeds give equal rows": vector_env.check_rows_repeatable,
    "environments differ from each other": vector_env.check_distinct,
}


@dataclass(frozen=True)
class Timing:
    """Measured times of an environment."""

    step_ms: float  # median of one environment
    slowest_ms: float  # maximum of its steps
    reset_ms: float  # median
    steps_per_second: float | None  # all environments of a run on their backend; None: they failed


@dataclass(frozen=True)
class BackendUnavailable:
    """Message: the requested backend cannot run the environment; `problem` is the text of a UserError."""

    problem: str


@dataclass(frozen=True)
class CheckStarted:
    """Message: a check begins; its CheckResult follows."""

    check: str


@dataclass(frozen=True)
class ChecksFinished:
    """Message: all checks are done."""

    spaces: tuple[ObsSpec, ActionSpec] | None  # None: no policy supports them
    timing: Timing | None


def run_check(check: str, target: EnvUnderTest) -> CheckResult:
    """Run one of CHECKS.

    A check during which the environment raises fails. If the environment already raised in its trace, a check of that
    trace reports the failure, and this one is unknown.
    """
    try:
        return CHECKS[check](target)
    except Inconclusive as why:
        return unknown(str(why))
    except Exception as error:
        return (
            unknown(f"it {describe_error(error)}") if target.fails_on_steps else fails(describe_error(error))
        )


def measured_timing(target: EnvUnderTest) -> Timing | None:
    """Return the times measured during the checks; None without steps."""
    try:
        trace = target.nonempty_trace
    except Inconclusive:
        return None
    if not trace.step_seconds:
        return None
    total: float | None = None
    with suppress(Exception):  # a check reports it
        total = vector_env.steps_per_second(target)
    steps, resets = trace.step_seconds, trace.reset_seconds
    return Timing(1e3 * statistics.median(steps), 1e3 * max(steps), 1e3 * statistics.median(resets), total)


def serve_checks(channel: "Connection[Any, Any]") -> None:
    """Run all checks in a child process, and send a message for each.

    Args:
        channel: to the parent, which sends a CheckRequest.
    """
    target = EnvUnderTest(channel.recv())
    request = target.request
    for number, check in enumerate(CHECKS):
        channel.send(CheckStarted(check))
        channel.send(run_check(check, target))
        if number == 0 and request.backend != "auto":
            try:  # a problem of the requested backend is no failure of the environment
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
    if not isinstance(target.env_or_problem, str) and not isinstance(target.specs_or_problem, str):
        spaces = target.specs_or_problem.obs, target.specs_or_problem.action
    channel.send(ChecksFinished(spaces, measured_timing(target)))
    target.close()
