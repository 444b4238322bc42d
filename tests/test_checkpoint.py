"""A checkpoint is there in one piece or not at all, and loading one runs no code."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from pgx.checkpoint import Checkpoints, write_atomically
from pgx.errors import UserError


def test_saved_state_comes_back_under_each_name(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"x": torch.arange(3), "steps": 7}, ["last", "step_7"])
    assert checkpoints.names() == ["last", "step_7"]
    for name in checkpoints.names():
        state = checkpoints.load(name)
        assert torch.equal(state["x"], torch.arange(3)) and state["steps"] == 7


def test_a_missing_checkpoint_names_those_that_are_there(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="none yet"):
        checkpoints.load("last")
    checkpoints.save({}, ["best"])
    with pytest.raises(UserError, match="holds: best"):
        checkpoints.load("last")


def test_loading_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "checkpoints").mkdir()
    torch.save({"x": Trap()}, tmp_path / "checkpoints" / "last.pt")
    with pytest.raises(pickle.UnpicklingError):
        Checkpoints(tmp_path).load("last")
    assert not (tmp_path / "sprung").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    (tmp_path / ".file.tmp").mkdir()  # where the new content would go first
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_rewrite_replaces_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"longer content", b"short"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
