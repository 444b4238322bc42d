"""The process in which an environment is looked at: one that hangs or dies takes no more than that with it."""

from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.envs.checks import CHECKS, EnvUnderTest, Timing, run_check, timing
from pgx.envs.make import choose_backend
from pgx.envs.rewards.spec import NO_SHAPING


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
