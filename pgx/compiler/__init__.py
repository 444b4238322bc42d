"""What runs the arithmetic: as it is written, or compiled. See docs/performance.md."""

from pgx.compiler.choose import (
    Compile,
    EngineChoice,
    ahead_of_time,
    aloud,
    choose_engine,
    just_in_time,
    make_engine,
    silently,
)
from pgx.compiler.compiled import Compiled
from pgx.compiler.eager import Eager

__all__ = [
    "Compile",
    "Compiled",
    "Eager",
    "EngineChoice",
    "ahead_of_time",
    "aloud",
    "choose_engine",
    "just_in_time",
    "make_engine",
    "silently",
]
