"""The command as tests call it: how it ended and what it wrote."""

from collections.abc import Callable
from typing import NamedTuple


class Said(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """The lines of its one error message."""
        assert "Traceback" not in self.out + self.err
        first, *rest = self.err.splitlines()
        if not rest:
            assert first.startswith("pgx: error: ")
            return [first.removeprefix("pgx: error: ")]
        assert first == f"pgx: {len(rest)} errors:"
        return [line.removeprefix("  ") for line in rest]


Command = Callable[..., Said]
