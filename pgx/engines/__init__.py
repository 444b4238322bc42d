"""What runs the arithmetic: as it is written, or compiled. See docs/performance.md."""

from pgx.engines.choose import Compile, EngineChoice, aloud, choose_engine, make_engine, silently
from pgx.engines.compiled import Compiled
from pgx.engines.eager import Eager

__all__ = [
    "Compile",
    "Compiled",
    "Eager",
    "EngineChoice",
    "aloud",
    "choose_engine",
    "make_engine",
    "silently",
]
