"""A checkpoint is there in one piece or not at all, and loading one runs no code."""

import os
from pathlib import Path

import pytest
import torch

from pgx.core.errors import UserError
from pgx.runs.checkpoints import (
    LAST,
    Checkpoints,
    DamagedError,
    checkpoint_name,
    serialize,
    snapshot,
    write_atomically,
)


def test_saved_state_comes_back_under_each_name(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(serialize({"x": torch.arange(3), "steps": 7}), ["last", "step_7"])
    assert checkpoints.names() == ["last", "step_7"]
    for name in checkpoints.names():
        state = checkpoints.load(name)
        assert torch.equal(state["x"], torch.arange(3)) and state["steps"] == 7


def test_a_missing_checkpoint_names_those_that_are_there(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="none yet"):
        checkpoints.load("last")
    checkpoints.save(serialize({}), ["best"])
    with pytest.raises(UserError, match="holds: best"):
        checkpoints.load("last")


def test_loading_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "checkpoints").mkdir()
    torch.save({"x": Trap()}, tmp_path / "checkpoints" / "last.pt")
    with pytest.raises(UserError, match="contains more than tensors and plain values"):
        Checkpoints(tmp_path).load("last")
    assert not (tmp_path / "sprung").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    (tmp_path / ".file.tmp").mkdir()  # where the new content would go first
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_rewrite_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"longer content", b"short"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def state(steps: int) -> bytes:
    return serialize(
        {"weights": torch.full((1000,), float(steps)), "steps": steps, "counters": {"steps": steps}}
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_torn_checkpoint_is_recognised_and_the_one_before_is_taken(tmp_path: Path, share: float) -> None:
    checkpoints = Checkpoints(tmp_path)
    for steps in (100, 200):
        checkpoints.save(state(steps), [checkpoint_name(steps), LAST])
    for name in (LAST, checkpoint_name(200)):
        path = checkpoints.folder / f"{name}.pt"
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(DamagedError, match="damaged"):
            checkpoints.load(name)
    found, damaged = checkpoints.newest()
    assert found["steps"] == 100 and len(damaged) == 2


def test_killed_between_the_two_names_of_a_checkpoint_the_run_has_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(100), [checkpoint_name(100)])
    assert checkpoints.newest()[0]["steps"] == 100


def test_a_flipped_bit_is_recognised(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1), [LAST])
    path = checkpoints.folder / f"{LAST}.pt"
    whole = path.read_bytes()
    at = whole.index(torch.full((4,), 1.0).numpy().tobytes()) + 2  # among the weights
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(DamagedError, match="checksum"):
        checkpoints.load(LAST)
    with pytest.raises(UserError, match="damaged"):
        checkpoints.newest()


def test_the_configured_number_is_kept_in_addition_to_last_and_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(state(0), ["best"])
    for steps in (1, 20, 300, 4000):
        checkpoints.save(state(steps), [checkpoint_name(steps), LAST])
    assert checkpoints.names() == ["best", LAST, checkpoint_name(300), checkpoint_name(4000)]


def test_going_back_to_a_checkpoint_makes_it_the_last_and_removes_later_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for steps in (1, 20, 300):
        checkpoints.save(state(steps), [checkpoint_name(steps), LAST])
    checkpoints.rewind(checkpoint_name(20))
    assert checkpoints.names() == [LAST, checkpoint_name(1), checkpoint_name(20)]
    assert checkpoints.load(LAST)["steps"] == checkpoints.newest()[0]["steps"] == 20
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoints.rewind(checkpoint_name(300))


def test_a_snapshot_is_what_a_state_was() -> None:
    inner, items = torch.zeros(3), [torch.ones(2)]
    taken = snapshot({"a": {"b": inner}, "c": items, "n": 1})
    inner += 7
    items[0] += 7
    items.append(torch.zeros(1))
    assert taken["a"]["b"].tolist() == [0, 0, 0] and taken["n"] == 1
    assert [x.tolist() for x in taken["c"]] == [[1, 1]]


def test_a_write_shows_the_old_file_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "file", list[bytes]()
    write_atomically(path, b"old")
    synced = os.fsync

    def looking(descriptor: int) -> None:
        seen.append(path.read_bytes())
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", looking)
    write_atomically(path, b"new")
    assert seen == [b"old", b"new"]  # of the file itself, then of its folder
