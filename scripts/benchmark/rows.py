"""Results: one row per measurement and round, written as JSON lines."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Side = Literal["bare", "pgx", "sb3", "tianshou"]
Detail = float | str | None

BARE: Side = "bare"
PGX: Side = "pgx"

LOOP = "training loop"  # case of the rates that are compared with the bare simulator

MORE_IS_BETTER = frozenset({"steps/s"})  # units; for other units less is better


@dataclass(frozen=True)
class Row:
    """Result of one measurement in one round. Rows with equal job and case do the same work on different sides."""

    job: str
    case: str
    side: Side
    setting: str  # settings of this side
    unit: str
    value: float | None  # None: not reached, e.g. a return
    num_envs: int | None = None
    details: dict[str, Detail] = field(default_factory=dict)
    round: int = 0


def to_json(row: Row) -> str:
    return json.dumps({"kind": "row", **asdict(row)})


def from_json(line: str) -> Row | None:
    """Return the row of a JSON line; None for a line of another kind (machine, failure)."""
    fields: dict[str, Any] = json.loads(line)
    return Row(**fields) if fields.pop("kind", None) == "row" else None
