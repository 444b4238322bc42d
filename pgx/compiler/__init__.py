"""Engines: eager or compiled execution of pure functions. See docs/performance.md."""

from pgx.compiler.choose import (
    Compile,
    EngineChoice,
    choose_engine,
    discard_report,
    make_aot_engine,
    make_engine,
    make_jit_engine,
    print_report,
)
from pgx.compiler.compiled import Compiled, Eager

__all__ = [
    "Compile",
    "Compiled",
    "Eager",
    "EngineChoice",
    "choose_engine",
    "discard_report",
    "make_aot_engine",
    "make_engine",
    "make_jit_engine",
    "print_report",
]
