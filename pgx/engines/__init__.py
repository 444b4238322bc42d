"""What runs the arithmetic: as it is written, or compiled. See docs/performance.md."""

from pgx.engines.compiled import Compiled
from pgx.engines.eager import Eager

__all__ = ["Compiled", "Eager"]
