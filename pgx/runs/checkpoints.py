"""Checkpoints: the state of a run after an iteration, written atomically."""

import io
import os
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from pgx.core.agent import State
from pgx.core.errors import UserError

LAST, BEST, STEP_PREFIX = "last", "best", "step_"


class DamagedError(UserError):
    """Damaged checkpoint file."""


def snapshot(state: Any) -> Any:
    """Return a copy of a state: tensors, dicts and lists are copied."""
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(snapshot, state))
    return state


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file atomically: a reader sees either the old or the new content.

    Raises:
        OSError: it cannot be written; the old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself must survive a power cut
    finally:
        os.close(directory)


def serialize(state: State) -> bytes:
    """Return a state in torch's format, a zip archive with a checksum for each part."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read_state(path: Path) -> State:
    """Read a state from a file. It may contain only tensors and plain values, so loading runs no code.

    Raises:
        DamagedError: the file is incomplete or a checksum is wrong.
        UserError: it contains other objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError):
        raise DamagedError(f"{path}: damaged; the file is incomplete") from None
    if damaged is not None:
        raise DamagedError(f"{path}: damaged; the checksum of {damaged} is wrong")
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not a checkpoint of pgx; it contains more than tensors and plain values, which could run code"
        ) from error
    return state


def checkpoint_name(steps: int) -> str:
    """Return the name of the checkpoint at `steps` environment steps; names sort by steps."""
    return f"{STEP_PREFIX}{steps:012d}"


class Checkpoints:
    """The folder `checkpoints/` of a run: `last.pt`, `best.pt` and one `step_<environment steps>.pt` per save.

    Args:
        run_dir: the run's folder.
        keep: number of the latest `step_` checkpoints to keep; None: all.
    """

    def __init__(self, run_dir: Path, keep: int | None = None) -> None:
        self.folder = run_dir / "checkpoints"
        self.keep = keep

    def save(self, state: bytes, names: Iterable[str]) -> None:
        """Write one serialized state under several names, and delete the oldest checkpoints beyond `keep`.

        Raises:
            OSError: not all could be written; existing files are complete.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            write_atomically(self.folder / f"{name}.pt", state)
        self._prune()

    def _prune(self) -> None:
        if self.keep is not None:
            for name in self._numbered()[: -self.keep]:
                (self.folder / f"{name}.pt").unlink()

    def rewind(self, name: str) -> None:
        """Make a checkpoint the last one, and delete those of later steps.

        Raises:
            UserError: the checkpoint does not exist or cannot be used.
        """
        steps = int(self.load(name)["counters"]["steps"])
        write_atomically(self.folder / f"{LAST}.pt", (self.folder / f"{name}.pt").read_bytes())
        for later in self._numbered():
            if later > checkpoint_name(steps):
                (self.folder / f"{later}.pt").unlink()

    def _numbered(self) -> list[str]:
        return [name for name in self.names() if name.startswith(STEP_PREFIX)]

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.pt"))

    def load(self, name: str) -> State:
        """Read a state.

        Raises:
            UserError: the checkpoint does not exist or cannot be used.
        """
        return read_state(self.path(name))

    def path(self, name: str) -> Path:
        """Return the path of a checkpoint.

        Raises:
            UserError: the checkpoint does not exist.
        """
        path = self.folder / f"{name}.pt"
        if not path.is_file():
            held = ", ".join(self.names()) or "none yet"
            raise UserError(f"{path}: no such checkpoint; {self.folder} holds: {held}")
        return path

    def newest(self) -> tuple[State, list[str]]:
        """Return the latest undamaged state, and a message for each damaged later one.

        Raises:
            UserError: there is no undamaged checkpoint.
        """
        damaged: list[str] = []
        there = self.names()
        for name in [n for n in (LAST, *reversed(self._numbered())) if n in there]:
            try:
                return self.load(name), damaged
            except DamagedError as error:
                damaged.append(str(error))
        raise UserError(*damaged or [f"{self.folder}: no checkpoint"])
