"""The worker's side of `runners/workers.py`: one process that runs one function."""

import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from pgx.core.errors import RunError, UserError
from pgx.distributed.child import end_with_parent, let_the_kernel_end_this, show_when_asked


@dataclass(frozen=True)
class Failure:
    """What a worker's function raised."""

    problem: str
    of_the_user: bool  # a UserError
    traceback: str


def serve(channel: "Connection[Any, Any]", lifeline: int, shows: int, *descriptors: int) -> None:
    """Run the function that the parent sends first, until it returns, raises or the parent is gone.

    Args:
        channel: to the parent.
        lifeline: end of a pipe that nothing is ever written to; it ends when the parent does.
        shows: descriptor that it says where it is on, when it is asked.
        descriptors: of what the function shares with the parent.
    """
    show_when_asked(shows)
    end_with_parent(lifeline, [channel.fileno(), shows, *descriptors])
    torch.set_num_threads(1)
    try:
        tied, index = channel.recv()
        if tied:
            let_the_kernel_end_this()
        try:
            target = channel.recv()
            target(index, channel)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            channel.send(failure(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, or has no more use for this


def failure(error: Exception) -> Failure:
    """An error that is pgx's own says all in its message, but for what an environment raised."""
    own = isinstance(error, UserError | RunError)
    problem = str(error) if own else f"{type(error).__name__}: {error}"
    told = error.__cause__ if own else error
    trace = "".join(traceback.format_exception(told)) if told else ""
    return Failure(problem, isinstance(error, UserError), trace)
