"""Parts of the loggers that send a run to a service: calls that may fail, the run's id, and flat configs."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pgx.runs.checkpoints import write_atomically
from pgx.runs.loggers.tensorboard import ConfigValue


class ServiceCalls:
    """Calls of a service that a run can do without: the first failure is warned about and ends all further calls.

    Args:
        service: its name, for the warning.
        warn: called with the warning.
    """

    def __init__(self, service: str, warn: Callable[[str], None]) -> None:
        self._service = service
        self._warn = warn
        self._failed = False

    def attempt(self, call: Callable[[], object]) -> None:
        """Make a call, unless an earlier one failed."""
        if self._failed:
            return
        try:
            call()
        except Exception as error:  # the client of a service may raise anything
            self._failed = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._warn(f"{self._service}: {reason}; the run continues without it")


def stored_id(path: Path, new_id: Callable[[], str]) -> tuple[str, bool]:
    """Return the id of a run at a service, which a file of its folder keeps, and whether it was there before."""
    if path.is_file():
        return path.read_text(encoding="utf-8"), True
    created = new_id()
    write_atomically(path, created.encode())
    return created, False


def random_id() -> str:
    """Return an id that no other run has."""
    return secrets.token_hex(4)


def flat_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, ConfigValue | None]:
    """Return nested values by dotted key; a list as text."""
    flat: dict[str, ConfigValue | None] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_values(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, bool | int | float | None) else str(value)
    return flat
