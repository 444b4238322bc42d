"""Tests of functions of whole episodes against explicit sums."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pgx.ops.episodes import (
    at_episode_start,
    discounted_by_time,
    from_grid,
    other_episodes_mean,
    other_episodes_mean_at_step,
    sum_of_others,
    to_grid,
    trajectory_objective,
)

Mean = Callable[[Tensor, Tensor, Tensor], Tensor]

ENVS = 3
LENGTHS = [[4, 1, 3], [2, 6], [1]]  # of the episodes of each environment, one row of reset between them
STEPS = 12


def layout() -> tuple[Tensor, Tensor, list[list[tuple[int, int]]]]:
    """Return time, valid, and the rows (t, i) of every episode, in order."""
    time = torch.zeros(STEPS, ENVS, dtype=torch.int64)
    valid = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    episodes = []
    for i, lengths in enumerate(LENGTHS):
        row = 0
        for length in lengths:
            episodes.append([(row + k, i) for k in range(length)])
            time[row : row + length, i] = torch.arange(length)
            valid[row : row + length, i] = True
            row += length + 1
        time[row:, i] = torch.arange(max(0, STEPS - row))  # an episode beyond the share: not data
    return time, valid, episodes


def random_numbers(seed: int) -> Tensor:
    return torch.randn(STEPS, ENVS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_objective_is_summed_over_steps_and_averaged_over_episodes() -> None:
    log_prob = torch.tensor([-1.0, -2.0, -3.0, -4.0], requires_grad=True)
    weight = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    objective = trajectory_objective(log_prob, weight, torch.tensor(2))
    assert float(objective.detach()) == -(1 + 20 + 300 + 4000) / 2
    objective.backward()
    assert log_prob.grad is not None and torch.equal(log_prob.grad, weight / 2)


def test_every_row_reads_the_first_row_of_its_episode() -> None:
    time, _, episodes = layout()
    x = random_numbers(0)
    y = at_episode_start(x, time)
    for rows in episodes:
        assert all(y[at] == x[rows[0]] for at in rows)


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_a_row_counts_as_much_as_it_does_at_the_start_of_its_episode(discount: float) -> None:
    time, _, episodes = layout()
    x = random_numbers(1)
    y = discounted_by_time(x, time, discount)
    for rows in episodes:
        for k, at in enumerate(rows):
            assert float(y[at]) == pytest.approx(discount**k * float(x[at]), rel=1e-12)


def test_the_mean_of_the_other_episodes_is_over_all_of_their_rows() -> None:
    time, valid, episodes = layout()
    x = random_numbers(2)
    mean = other_episodes_mean(x, time, valid)
    for rows in episodes:
        others = [float(x[at]) for other in episodes if other is not rows for at in other]
        for at in rows:
            assert float(mean[at]) == pytest.approx(sum(others) / len(others), rel=1e-12)


def test_the_mean_at_a_step_is_over_the_other_episodes_that_lasted_so_long() -> None:
    time, valid, episodes = layout()
    x = random_numbers(3)
    mean = other_episodes_mean_at_step(x, time, valid)
    alone = 0
    for rows in episodes:
        for k, at in enumerate(rows):
            others = [float(x[other[k]]) for other in episodes if other is not rows and len(other) > k]
            alone += not others
            assert float(mean[at]) == pytest.approx(sum(others) / len(others) if others else 0.0, rel=1e-12)
    assert alone == 2  # the last steps of the longest episode


@pytest.mark.parametrize("mean", [other_episodes_mean, other_episodes_mean_at_step])
def test_a_baseline_does_not_read_the_episode_it_is_for_nor_rows_that_are_no_data(mean: Mean) -> None:
    time, valid, episodes = layout()
    x = random_numbers(4)
    for rows in episodes:
        changed = torch.where(valid, x, torch.nan)
        for at in rows:
            changed[at] = 1e3 * float(x[at]) + 7
        for at in rows:
            assert float(mean(changed, time, valid)[at]) == pytest.approx(
                float(mean(x, time, valid)[at]), abs=1e-9
            )


@pytest.mark.parametrize("mean", [other_episodes_mean, other_episodes_mean_at_step])
def test_one_episode_alone_has_baseline_0(mean: Mean) -> None:
    time = torch.arange(4).unsqueeze(-1)
    x = random_numbers(5)[:4, :1]
    assert torch.equal(mean(x, time, torch.ones(4, 1, dtype=torch.bool)), torch.zeros_like(x))


@pytest.mark.parametrize("mean", [other_episodes_mean, other_episodes_mean_at_step])
def test_a_baseline_is_exact_next_to_a_return_that_dwarfs_the_others(mean: Mean) -> None:
    """With one return of 1e7 among returns of about 1, a difference of sums has no correct digit in float32."""
    episodes = 32
    time, valid = torch.zeros(1, episodes, dtype=torch.int64), torch.ones(1, episodes, dtype=torch.bool)
    x = torch.randn(1, episodes, generator=torch.Generator().manual_seed(0))
    x[0, 5] = 1e7
    expected = (x[0].double().sum() - x[0, 5].double()) / (episodes - 1)
    assert float(mean(x, time, valid)[0, 5]) == pytest.approx(float(expected), abs=1e-6)


def test_every_episode_has_a_column_from_its_first_step_on() -> None:
    valid = torch.tensor([[1, 1], [1, 1], [0, 1], [1, 0], [1, 1], [1, 0]], dtype=torch.bool)
    time = torch.tensor([[0, 0], [1, 1], [0, 2], [0, 0], [1, 0], [2, 0]])
    x = torch.arange(12.0).view(6, 2) + 1
    grid = to_grid(x, time, valid)
    # Columns: both episodes of the first environment, then those of the second.
    assert grid.T.tolist() == [[1, 3, 0], [7, 9, 11], [2, 4, 6], [10, 0, 0]]
    assert torch.equal(from_grid(grid, time, valid), torch.where(valid, x, 0.0))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_sum_of_others_is_the_sum_without_oneself(n: int) -> None:
    x = torch.rand(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    assert torch.allclose(sum_of_others(x), x.sum(-1, keepdim=True) - x, atol=1e-14)


def test_the_sum_of_others_is_exact_next_to_a_huge_number() -> None:
    of_the_large_one = sum_of_others(torch.tensor([1e-20, 1e20, 3e-20], dtype=torch.float64))[1]
    assert float(of_the_large_one) == pytest.approx(4e-20, rel=1e-12, abs=0)
