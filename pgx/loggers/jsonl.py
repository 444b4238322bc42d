"""metrics.jsonl: one JSON object a line, `step` and the tags."""

import json
from pathlib import Path
from typing import Any

from pgx.checkpoint import write_atomically
from pgx.types import Metrics


class JsonLines:
    """Appends to a file, flushed line by line so that a killed run keeps what it had written.

    Args:
        path: the file.
        keep_until: rows past this environment step are dropped first (a resumed run writes them again); None
            starts the file anew.
    """

    def __init__(self, path: Path, keep_until: int | None) -> None:
        kept = [] if keep_until is None else [row for row in read(path) if row["step"] <= keep_until]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = path.open("a")

    def write(self, steps: int, metrics: Metrics) -> None:
        self._file.write(json.dumps({"step": steps, **metrics}) + "\n")
        self._file.flush()

    def close(self, summary: dict[str, Any]) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that a crash cut short is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    rows = [json.loads(line) for line in lines[:-1]]
    assert all(isinstance(row, dict) for row in rows)
    return rows
