"""Episodes in columns of their own, and sums over the others."""

import pytest
import torch

from pgx.ops.episode_grid import from_grid, sum_of_others, to_grid


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


def test_the_sum_of_others_is_exact_beside_a_number_that_dwarfs_them() -> None:
    of_the_large_one = sum_of_others(torch.tensor([1e-20, 1e20, 3e-20], dtype=torch.float64))[1]
    assert float(of_the_large_one) == pytest.approx(4e-20, rel=1e-12, abs=0)
