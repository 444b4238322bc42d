"""Locations in messages, from tracebacks and stack reports."""

import json
import socket

import numpy as np

import pgx.training.trainer
from pgx.core.tracebacks import StackFrame, exception_frames, location, parse_frames

USER = StackFrame("/home/me/my_env.py", 42, "step")
PACKAGE = StackFrame(str(np.__file__), 7, "solve")
LIBRARY = StackFrame(str(socket.__file__), 5, "recv")
TRAINER = StackFrame(str(pgx.training.trainer.__file__), 3, "train")


def test_the_location_is_the_innermost_line_of_the_user() -> None:
    """Not the line of a package that the user's code called, nor the line of pgx that called the user's code."""
    outer = StackFrame("/home/me/my_env.py", 50, "outer")
    assert location([LIBRARY, PACKAGE, USER, outer, PACKAGE, TRAINER]) == "in step (my_env.py:42)"
    assert location([TRAINER, LIBRARY, PACKAGE, TRAINER]) == "in solve (__init__.py:7)"
    assert location([TRAINER, StackFrame("<string>", 1, "<module>"), LIBRARY]) == "in <module> (<string>:1)"
    assert location([TRAINER, LIBRARY]) == "in recv (socket.py:5)"
    assert location([]) == ""


def test_frames_are_those_of_the_current_thread() -> None:
    report = (
        "Thread 0x01 (most recent call first):\n"
        '  File "/lib/threading.py", line 1 in run\n\n'
        "Current thread 0x02 (most recent call first):\n"
        '  File "/home/me/a b.py", line 42 in step\n'
        '  File "/home/me/main.py", line 7 in <module>\n\n'
        "Thread 0x03 (most recent call first):\n"
        '  File "/lib/queue.py", line 2 in get\n'
    )
    assert parse_frames(report) == [
        StackFrame("/home/me/a b.py", 42, "step"),
        StackFrame("/home/me/main.py", 7, "<module>"),
    ]
    assert parse_frames("") == []


def test_an_exception_is_located_where_it_was_raised() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        found = exception_frames(error)
    assert found[-1].function == "test_an_exception_is_located_where_it_was_raised"
    assert found[0].file == json.decoder.__file__
    assert location(found).startswith(
        "in test_an_exception_is_located_where_it_was_raised (test_tracebacks.py:"
    )
