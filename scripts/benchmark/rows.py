"""What is measured: one row a round, and one JSON line a row."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Side = Literal["bare", "pgx", "sb3", "tianshou"]
Detail = float | str | None

BARE: Side = "bare"
PGX: Side = "pgx"

LOOP = "training loop"  # the case of the rates that are set beside the simulator's bare one

MORE_IS_BETTER = frozenset({"steps/s"})  # units; of the others less is better


@dataclass(frozen=True)
class Row:
    """One number of one round. Rows that share job and case, but not side, do the same work."""

    job: str
    case: str
    side: Side
    setting: str  # how this side does it
    unit: str
    value: float | None  # None: it did not come to it, e.g. a return that was not reached
    num_envs: int | None = None
    details: dict[str, Detail] = field(default_factory=dict)
    round: int = 0


def to_json(row: Row) -> str:
    return json.dumps({"kind": "row", **asdict(row)})


def from_json(line: str) -> Row | None:
    """The row of a line; None where the line is of another kind (the machine's, a failure's)."""
    fields: dict[str, Any] = json.loads(line)
    return Row(**fields) if fields.pop("kind", None) == "row" else None
