"""The process in which an environment is looked at: one that hangs or dies takes no more than that with it."""

from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.distributed.child import end_with_parent, let_the_kernel_end_this, show_when_asked
from pgx.envs.checks import CHECKS, Asked, Pace, Subject, judge, pace
from pgx.envs.make import choose_backend
from pgx.envs.rewards.plan import OWN


@dataclass(frozen=True)
class Refused:
    """What was asked for cannot be had, in the words of a UserError."""

    problem: str


@dataclass(frozen=True)
class Looks:
    """An assumption is about to be looked at; its verdict follows."""

    assumption: str


@dataclass(frozen=True)
class Seen:
    """All was looked at."""

    spaces: tuple[ObsSpec, ActionSpec] | None  # None: no policy takes them
    pace: Pace | None


def serve(channel: "Connection[Any, Any]", lifeline: int, shows: int) -> None:
    """Look at the environment that the parent names, and tell it of each assumption.

    Args:
        channel: to the parent.
        lifeline: end of a pipe that nothing is ever written to; it ends when the parent does.
        shows: descriptor that it says where it is on, when it is asked.
    """
    show_when_asked(shows)
    end_with_parent(lifeline, [channel.fileno(), shows])
    try:
        asked: Asked = channel.recv()
        let_the_kernel_end_this()
        _look(channel, Subject(asked))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _look(channel: "Connection[Any, Any]", subject: Subject) -> None:
    for number, assumption in enumerate(CHECKS):
        channel.send(Looks(assumption))
        channel.send(judge(assumption, subject))
        asked = subject.asked
        if number == 0 and asked.backend != "auto":
            try:  # what was named and cannot do it is no fault of the environment's
                choose_backend(asked.id, asked.backend, asked.kwargs, asked.num_envs, asked.num_threads, OWN)
            except UserError as error:
                channel.send(Refused(str(error)))
                return
    spaces = None
    if not isinstance(subject.made, str) and not isinstance(subject.taken, str):
        spaces = subject.taken.obs, subject.taken.action
    channel.send(Seen(spaces, pace(subject)))
    subject.close()
