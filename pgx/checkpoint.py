"""Checkpoints: what a run is at an iteration's end, on disk in one piece or not at all."""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from pgx.errors import UserError
from pgx.types import State

LAST, BEST = "last", "best"


def snapshot(state: Any) -> Any:
    """A state of its own, which later changes of tensors, dicts and lists do not reach."""
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(snapshot, state))
    return state


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by whole new content: whoever reads it, at whatever moment, sees the old or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself must survive a power cut
    finally:
        os.close(directory)


class Checkpoints:
    """The folder `checkpoints/` of a run: `last.pt`, `best.pt` and one `step_<environment steps>.pt` per save."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / "checkpoints"

    def save(self, state: State, names: Iterable[str]) -> None:
        """Write one state under several names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        for name in names:
            write_atomically(self.folder / f"{name}.pt", buffer.getvalue())

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.pt"))

    def load(self, name: str) -> State:
        """Read a state; tensors and plain values only, so that loading runs no code.

        Raises:
            UserError: there is none of that name.
        """
        path = self.folder / f"{name}.pt"
        if not path.is_file():
            held = ", ".join(self.names()) or "none yet"
            raise UserError(f"{path}: no such checkpoint; {self.folder} holds: {held}")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
