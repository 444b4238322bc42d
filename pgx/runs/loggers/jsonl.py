"""Append-only files, and the metrics file: one JSON object per line with `step` and the tags.

JSON has no infinity and no NaN; they are written as the texts "Infinity", "-Infinity" and "NaN".
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgx.core.agent import Metrics
from pgx.runs.checkpoints import write_atomically
from pgx.runs.loggers import VideoClip
from pgx.runs.metrics import present_tag


class AppendOnlyFile:
    """File to which records are appended, each completely or not at all.

    There is no buffer in this process, so a killed run loses no record.

    Args:
        path: path of the file; created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = os.fstat(self._file).st_size  # of the last complete record
        self._partial = False

    def append(self, record: bytes) -> None:
        """Write a record.

        Raises:
            OSError: it was not written completely; the next record overwrites it.
        """
        if self._partial:
            os.ftruncate(self._file, self._end)
            self._partial = False
        left = memoryview(record)
        while left:
            try:
                left = left[os.write(self._file, left) :]
            except OSError:
                self._partial = True
                raise
        self._end += len(record)

    def flush(self) -> None:
        """Flush written records to disk.

        Raises:
            OSError: the disk refused.
        """
        if self._partial:
            os.ftruncate(self._file, self._end)
            self._partial = False
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


METRICS = "metrics.jsonl"
_TEXTS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


class JsonLines:
    """Logger that appends rows to a file.

    Args:
        path: path of the file.
        keep_until: rows after this environment step are dropped (a resumed run writes them again); None: the file is
            emptied.
        keep_rows: number of rows to keep at most: those that the checkpoint counts.
    """

    def __init__(self, path: Path, keep_until: int | None, keep_rows: int) -> None:
        kept = [] if keep_until is None else [row for row in _rows(path) if row["step"] <= keep_until]
        kept = kept[:keep_rows]
        write_atomically(
            path, "".join(json.dumps(encode_nonfinite(row), allow_nan=False) + "\n" for row in kept).encode()
        )
        self._file = AppendOnlyFile(path)

    def write(self, steps: int, metrics: Metrics) -> None:
        self._file.append(
            (json.dumps(encode_nonfinite({"step": steps, **metrics}), allow_nan=False) + "\n").encode()
        )

    def write_video(self, steps: int, clip: VideoClip) -> None:
        """Ignore the video: rows contain numbers only."""

    def flush(self) -> None:
        self._file.flush()

    def finish(self, summary: dict[str, Any]) -> None:
        """Ignore the summary: it is written to summary.json."""

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file, under the present names of their tags.

    Lines that a crash truncated or that a disk lost are left out. Rows are flushed to disk before a checkpoint is
    written, so such lines are past the last checkpoint, and a resumed run writes them again.
    """
    return [{present_tag(tag): value for tag, value in row.items()} for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").split("\n")
    return [row for line in lines[:-1] if (row := _row(line)) is not None]


def encode_nonfinite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with infinite numbers and NaN as texts, as strict JSON requires."""
    return {key: _finite(value) for key, value in row.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return _text(value)
    if isinstance(value, Mapping):
        return encode_nonfinite(value)
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _text(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def decode_nonfinite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Invert `encode_nonfinite`."""
    return {key: _TEXTS.get(value, value) if isinstance(value, str) else value for key, value in row.items()}


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return decode_nonfinite(row) if isinstance(row, dict) and "step" in row else None
