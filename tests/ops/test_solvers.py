"""Tests of conjugate gradient against a direct solver, and of the fractions tried by the line search."""

import math

import pytest
import torch
from torch import Tensor

from pgx.ops.solvers import backtracking_line_search, conjugate_gradient, ridge_regression


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_with(eigenvalues: list[float], seed: int) -> Tensor:
    """Return a symmetric matrix with these eigenvalues and random eigenvectors."""
    n = len(eigenvalues)
    q, _ = torch.linalg.qr(normal(seed, n, n))
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T


def spd(n: int, seed: int) -> Tensor:
    return matrix_with(torch.linspace(0.5, 20, n).tolist(), seed)


@pytest.mark.parametrize("n", [1, 2, 10, 30])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cg_solves_what_a_direct_solver_solves(n: int, seed: int) -> None:
    a, b = spd(n, seed), normal(seed + 10, n)
    result = conjugate_gradient(a.mv, b, max_steps=10 * n, tolerance=1e-12)
    assert torch.allclose(result.x, torch.linalg.solve(a, b), rtol=1e-9, atol=1e-10)
    assert result.residual <= 1e-12


@pytest.mark.parametrize("max_steps", [1, 2, 3, 5, 8, 15])
def test_the_reported_residual_is_the_true_one(max_steps: int) -> None:
    a, b = spd(20, 0), normal(1, 20)
    result = conjugate_gradient(a.mv, b, max_steps, tolerance=0.0)
    true = float((b - a @ result.x).norm() / b.norm())
    assert result.steps == max_steps
    assert result.residual == pytest.approx(true, rel=1e-6)
    torch.testing.assert_close(result.product, a @ result.x)


@pytest.mark.parametrize("tolerance", [0.5, 1e-2, 1e-5])
def test_cg_stops_at_the_first_step_within_tolerance(tolerance: float) -> None:
    a, b = spd(20, 0), normal(1, 20)
    result = conjugate_gradient(a.mv, b, 100, tolerance)
    before = conjugate_gradient(a.mv, b, result.steps - 1, 0.0)
    assert result.residual <= tolerance < before.residual
    assert 1 < result.steps < 100


@pytest.mark.parametrize("distinct", [[3.0], [1.0, 4.0], [0.5, 2.0, 30.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_cg_takes_as_many_steps_as_there_are_distinct_eigenvalues(distinct: list[float]) -> None:
    eigenvalues = [distinct[k % len(distinct)] for k in range(15)]
    a, b = matrix_with(eigenvalues, 0), normal(1, 15)
    result = conjugate_gradient(a.mv, b, 100, tolerance=1e-10)
    assert result.steps == len(distinct)
    assert torch.allclose(a @ result.x, b, atol=1e-8)


def test_cg_multiplies_once_a_step() -> None:
    a, b = spd(10, 0), normal(1, 10)
    calls: list[Tensor] = []

    def matvec(v: Tensor) -> Tensor:
        calls.append(v)
        return a @ v

    result = conjugate_gradient(matvec, b, 4, 0.0)
    assert len(calls) == result.steps == 4


def test_cg_of_zero_is_zero_without_a_step() -> None:
    result = conjugate_gradient(spd(5, 0).mv, torch.zeros(5, dtype=torch.float64), 10, 1e-8)
    assert result.x.tolist() == [0.0] * 5
    assert (result.residual, result.steps) == (0.0, 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_cg_step_brings_x_nearer_in_the_norm_of_a(seed: int) -> None:
    a, b = spd(12, seed), normal(seed + 10, 12)
    solution = torch.linalg.solve(a, b)
    errors = []
    for steps in range(1, 12):
        e = conjugate_gradient(a.mv, b, steps, 0.0).x - solution
        errors.append(float(e @ a @ e))
    assert all(
        later < earlier for earlier, later in zip([float(solution @ b), *errors], errors, strict=False)
    )


@pytest.mark.parametrize("k", [1, 2, 4])
def test_cg_is_optimal_over_the_krylov_space(k: int) -> None:
    """x_k minimizes 1/2 xᵀAx - bᵀx over span(b, Ab, ..., A^{k-1} b), so the residual is orthogonal to it."""
    a, b = spd(10, 3), normal(4, 10)
    x = conjugate_gradient(a.mv, b, k, 0.0).x
    power = b
    for _ in range(k):
        assert abs(float(power @ (b - a @ x))) < 1e-9 * float(power.norm() * b.norm())
        power = a @ power


def test_cg_does_not_change_b() -> None:
    a, b = spd(6, 0), normal(1, 6)
    before = b.clone()
    conjugate_gradient(a.mv, b, 6, 0.0)
    assert torch.equal(b, before)


def test_a_singular_matrix_gives_no_nan() -> None:
    a = matrix_with([0.0, 0.0, 1.0, 2.0, 5.0], 0)
    outside_the_range = normal(1, 5)
    result = conjugate_gradient(a.mv, outside_the_range, 50, 1e-10)
    assert result.x.isfinite().all()
    assert math.isfinite(result.residual)
    inside = a @ normal(2, 5)
    solved = conjugate_gradient(a.mv, inside, 50, 1e-9)
    assert torch.allclose(a @ solved.x, inside, atol=1e-7)


def test_a_direction_without_curvature_ends_the_search() -> None:
    result = conjugate_gradient(lambda v: torch.zeros_like(v), torch.ones(4), 10, 1e-8)
    assert result.x.tolist() == [0.0] * 4
    assert (result.residual, result.steps) == (1.0, 0)


def test_a_direction_of_negative_curvature_is_not_taken() -> None:
    result = conjugate_gradient(lambda v: -v, torch.ones(4), 10, 1e-8)
    assert result.x.tolist() == [0.0] * 4
    assert result.steps == 0


def test_a_gradient_of_nan_is_not_reported_as_solved() -> None:
    result = conjugate_gradient(lambda v: v, torch.tensor([1.0, math.nan]), 10, 1e-8)
    assert math.isnan(result.residual)


@pytest.mark.parametrize("shrink", [0.5, 0.8])
@pytest.mark.parametrize("accepted_at", [1, 2, 4])
def test_the_line_search_tries_powers_of_shrink_until_one_is_accepted(
    shrink: float, accepted_at: int
) -> None:
    tried: list[float] = []

    def accept(fraction: float) -> bool:
        tried.append(fraction)
        return len(tried) >= accepted_at

    result = backtracking_line_search(accept, shrink, backtracks=6)
    assert tried == pytest.approx([shrink**k for k in range(accepted_at)])
    assert result.fraction == tried[-1]
    assert result.steps == accepted_at


def test_the_line_search_takes_the_largest_good_fraction() -> None:
    assert backtracking_line_search(lambda fraction: fraction <= 0.3, 0.5, 10).fraction == 0.25


@pytest.mark.parametrize("backtracks", [0, 1, 5])
def test_a_line_search_tries_the_powers_0_to_k_and_counts_them(backtracks: int) -> None:
    tried: list[float] = []

    def accept(fraction: float) -> bool:
        tried.append(fraction)
        return False

    result = backtracking_line_search(accept, 0.5, backtracks)
    assert (result.fraction, result.steps) == (0.0, backtracks + 1)
    assert tried == [0.5**j for j in range(backtracks + 1)]
    assert (
        backtracking_line_search(lambda fraction: fraction == tried[-1], 0.5, backtracks).fraction
        == tried[-1]
    )


@pytest.mark.parametrize("shape", [(12, 5), (5, 5), (5, 12)], ids=["tall", "square", "wide"])
def test_ridge_regression_is_least_squares_on_rows_that_pull_to_zero(shape: tuple[int, int]) -> None:
    """mean (y - Ψw)² + ridge |w|² is |y - Ψw|² / B plus P more rows √ridge I with the target 0."""
    features, target, ridge = normal(0, *shape), normal(1, shape[0]) + 2, 0.3
    rows = torch.cat([features / shape[0] ** 0.5, ridge**0.5 * torch.eye(shape[1], dtype=torch.float64)])
    targets = torch.cat([target / shape[0] ** 0.5, torch.zeros(shape[1], dtype=torch.float64)])
    expected = torch.linalg.lstsq(rows, targets.unsqueeze(1)).solution.squeeze(1)
    assert torch.allclose(ridge_regression(features, target, ridge), expected, rtol=1e-9, atol=1e-11)


def test_ridge_regression_finds_weights_that_made_the_target_and_shrinks_them() -> None:
    features, weights = normal(0, 50, 4), normal(1, 4)
    target = features @ weights
    assert torch.allclose(ridge_regression(features, target, 1e-12), weights, atol=1e-8)
    norms = [float(ridge_regression(features, target, ridge).norm()) for ridge in (1e-3, 1.0, 1e3)]
    assert norms[0] > norms[1] > norms[2] > 0
    assert torch.equal(ridge_regression(features, 0 * target, 0.1), torch.zeros(4, dtype=torch.float64))
