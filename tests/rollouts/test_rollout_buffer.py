"""Recordings: what was written comes back, however the columns grew and whoever wrote first."""

import numpy as np
import pytest
import torch

from pgx.rollouts.collector import RolloutBuffer

CPU = torch.device("cpu")
COLUMNS: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
    "obs": ((3, 2), np.uint8),
    "action": ((4,), np.float32),
    "reward": ((), np.float64),
    "terminated": ((), np.bool_),
    "time": ((), np.int64),
}


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 200, shape)


@pytest.mark.parametrize("room", [1, 2, 7, 64])
def test_rows_come_back_as_they_were_written(room: int) -> None:
    """Bit for bit and in their own types, in a room too small or too large."""
    rng = np.random.default_rng(0)
    buffer = RolloutBuffer(room)
    written = {name: numbers(rng, 41, 5, *shape).astype(kind) for name, (shape, kind) in COLUMNS.items()}
    for t in range(41):
        for name, values in written.items():
            buffer.write(name, t, values[t])
        buffer.steps = t + 1
    for name, values in written.items():
        assert buffer[name].dtype == values.dtype
        assert buffer[name].tobytes() == values.tobytes() and buffer[name].shape == values.shape
        tensor = buffer.tensor(name, CPU)
        assert torch.equal(tensor, torch.from_numpy(values))


def test_a_recording_keeps_what_values_were_when_they_were_written() -> None:
    buffer, values = RolloutBuffer(room=4), np.zeros(2)
    buffer.write("reward", 0, values)
    values += 7
    buffer.steps = 1
    assert buffer["reward"].tolist() == [[0.0, 0.0]]


def test_as_many_rows_come_back_as_steps_were_taken_and_more_where_asked_for() -> None:
    buffer = RolloutBuffer(room=8)
    for t in range(6):
        buffer.write("obs", t, np.array([t]))
    buffer.steps = 5
    assert buffer["obs"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert buffer.tensor("obs", CPU)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert buffer.tensor("obs", CPU, more=1)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("room", [1, 2, 64])
def test_what_was_not_written_is_ones(room: int) -> None:
    """Masks of environments that show theirs at times: all is allowed where nothing was said."""
    buffer = RolloutBuffer(room)
    said = np.zeros((3, 4), dtype=bool)
    buffer.write("action_mask", 5, said)
    buffer.write("action_mask", 30, said)
    buffer.steps = 31
    expected = np.ones((31, 3, 4), dtype=bool)
    expected[[5, 30]] = False
    assert np.array_equal(buffer["action_mask"], expected)


def test_a_recording_says_which_columns_it_has() -> None:
    buffer = RolloutBuffer(room=1)
    assert "reward" not in buffer
    buffer.write("reward", 0, np.zeros(1))
    assert "reward" in buffer and "recurrent_state" not in buffer


def test_rows_can_be_marked_where_they_stand() -> None:
    """What a runner finds out after a step: that it was beyond what was asked for."""
    buffer = RolloutBuffer(room=1)
    for t in range(3):
        buffer.write("valid", t, np.ones(2, dtype=bool))
        buffer.steps = t + 1
        buffer["valid"][-1] &= np.array([True, t < 1])
    assert buffer["valid"].tolist() == [[True, True], [True, False], [True, False]]
