"""What runs the arithmetic: as it is written, or compiled. See docs/performance.md."""

from pgx.engines.choose import Compile, EngineChoice, choose_engine, make_engine
from pgx.engines.compiled import Compiled
from pgx.engines.eager import Eager

__all__ = ["Compile", "Compiled", "Eager", "EngineChoice", "choose_engine", "make_engine"]
