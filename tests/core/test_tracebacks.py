"""What of a traceback goes into a message."""

import json
import socket

import numpy as np

import pgx.training.trainer
from pgx.core.tracebacks import StackFrame, exception_frames, location, parse_frames

NO_SHAPING = StackFrame("/home/me/my_env.py", 42, "step")
PACKAGE = StackFrame(str(np.__file__), 7, "solve")
LIBRARY = StackFrame(str(socket.__file__), 5, "recv")
TRAINER = StackFrame(str(pgx.training.trainer.__file__), 3, "train")


def test_the_place_is_the_innermost_line_that_is_the_user_s() -> None:
    """Not where his code called another's, nor where pgx called his."""
    outer = StackFrame("/home/me/my_env.py", 50, "outer")
    assert location([LIBRARY, PACKAGE, NO_SHAPING, outer, PACKAGE, TRAINER]) == "in step (my_env.py:42)"
    assert location([TRAINER, LIBRARY, PACKAGE, TRAINER]) == "in solve (__init__.py:7)"
    assert location([TRAINER, StackFrame("<string>", 1, "<module>"), LIBRARY]) == "in <module> (<string>:1)"
    assert location([TRAINER, LIBRARY]) == "in recv (socket.py:5)"
    assert location([]) == ""


def test_frames_are_those_of_the_thread_that_answered() -> None:
    said = (
        "Thread 0x01 (most recent call first):\n"
        '  File "/lib/threading.py", line 1 in run\n\n'
        "Current thread 0x02 (most recent call first):\n"
        '  File "/home/me/a b.py", line 42 in step\n'
        '  File "/home/me/main.py", line 7 in <module>\n\n'
        "Thread 0x03 (most recent call first):\n"
        '  File "/lib/queue.py", line 2 in get\n'
    )
    assert parse_frames(said) == [
        StackFrame("/home/me/a b.py", 42, "step"),
        StackFrame("/home/me/main.py", 7, "<module>"),
    ]
    assert parse_frames("") == []


def test_an_exception_is_placed_where_it_came_from() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        found = exception_frames(error)
    assert found[-1].function == "test_an_exception_is_placed_where_it_came_from"
    assert found[0].file == json.decoder.__file__
    assert location(found).startswith(
        "in test_an_exception_is_placed_where_it_came_from (test_tracebacks.py:"
    )
