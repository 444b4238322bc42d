"""What runs the arithmetic: as it is written, or compiled. See docs/performance.md."""

from pgx.engines.choose import (
    Compile,
    EngineChoice,
    ahead_of_time,
    aloud,
    choose_engine,
    just_in_time,
    make_engine,
    silently,
)
from pgx.engines.compiled import Compiled
from pgx.engines.eager import Eager

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
