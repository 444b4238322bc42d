"""Result of a command of pgx in tests."""

from collections.abc import Callable
from typing import NamedTuple


class CommandResult(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """Lines of the error message."""
        assert "Traceback" not in self.out + self.err
        first, *rest = self.err.splitlines()
        if not rest:
            assert first.startswith("pgx: error: ")
            return [first.removeprefix("pgx: error: ")]
        assert first == f"pgx: {len(rest)} errors:"
        return [line.removeprefix("  ") for line in rest]


Command = Callable[..., CommandResult]
