"""Engines: eager or compiled execution of pure functions. See docs/performance.md."""

from pgx.compiler.choose import (
    Compile,
    EngineChoice,
    ahead_of_time,
    choose_engine,
    discard_report,
    just_in_time,
    make_engine,
    print_report,
)
from pgx.compiler.compiled import Compiled, Eager

__all__ = [
    "Compile",
    "Compiled",
    "Eager",
    "EngineChoice",
    "ahead_of_time",
    "choose_engine",
    "discard_report",
    "just_in_time",
    "make_engine",
    "print_report",
]
