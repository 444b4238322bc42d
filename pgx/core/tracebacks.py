"""Stack frames of tracebacks, and the line of them that a message names."""

import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class StackFrame(NamedTuple):
    """Line of code that a thread executes."""

    file: str
    line: int
    function: str


def parse_frames(report: str) -> list[StackFrame]:
    """Return the frames of the current thread, usually the main thread, innermost first.

    Args:
        report: output of `faulthandler`; may be empty.
    """
    current = report.partition("Current thread")[2].partition("\n\n")[0]
    return [StackFrame(file, int(line), function) for file, line, function in _FRAME.findall(current)]


def exception_frames(error: BaseException) -> list[StackFrame]:
    """Return the frames in which an exception was raised, innermost first."""
    walked = [
        StackFrame(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return walked[::-1]


def location(frames: Iterable[StackFrame]) -> str:
    """Return the innermost line of the user's code as `in step (myenv.py:42)`, or "" without frames.

    Without code of the user, it is the innermost line of another package, else of Python's library.
    """
    ranked = sorted(frames, key=lambda frame: _distance(frame.file))  # stable: innermost first among equals
    if not ranked:
        return ""
    file, line, function = ranked[0]
    return f"in {function} ({Path(file).name}:{line})"


def describe_exception(error: BaseException) -> str:
    """Return type, message and line of an exception: `ValueError: too small, in step (myenv.py:42)`."""
    where = location(exception_frames(error))
    return f"{type(error).__name__}: {error}" + (f", {where}" if where else "")


def _distance(file: str) -> int:
    """Return 0 for code of the user, more for code that the user is less likely to have written."""
    paths = sysconfig.get_paths()
    if file.startswith(str(Path(__file__).parents[1]) + os.sep):
        return 3
    if file.startswith("<"):  # frozen modules and executed strings
        return 2
    if any(file.startswith(paths[which] + os.sep) for which in ("purelib", "platlib")):
        return 1
    return 2 if file.startswith(paths["stdlib"] + os.sep) else 0
