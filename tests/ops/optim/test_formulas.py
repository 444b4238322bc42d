"""Tests of gradient clipping, directions and schedules against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from pgx.ops.optim import formulas
from pgx.ops.optim.formulas import SCHEDULES

PROGRESS = [k / 20 for k in range(21)]


def gradients(steps: int, size: int = 5) -> Tensor:
    """Return gradients [steps, size] of different sizes and signs."""
    generator = torch.Generator().manual_seed(0)
    scale = 10.0 ** torch.linspace(-2, 2, steps, dtype=torch.float64)
    return scale.unsqueeze(-1) * torch.randn(steps, size, generator=generator, dtype=torch.float64)


def adam(slopes: Tensor, beta1: float, beta2: float, epsilon: float) -> Tensor:
    """Return the directions of Adam for a series of gradients, [steps, size]."""
    first = second = total1 = total2 = torch.zeros_like(slopes[0])
    directions = []
    for slope in slopes:
        total1, total2 = formulas.total_weight(total1, beta1), formulas.total_weight(total2, beta2)
        direction, first, second = formulas.adam(slope, first, second, total1, total2, beta1, beta2, epsilon)
        directions.append(direction)
    return torch.stack(directions)


@pytest.mark.parametrize("max_norm", [1e-3, 0.5, 1.0, 20.0])
def test_clipping_bounds_the_norm_and_keeps_the_direction(max_norm: float) -> None:
    for gradient in gradients(9):
        clipped = formulas.clip_by_norm(gradient, max_norm)
        assert float(clipped.norm()) <= max_norm
        assert torch.allclose(clipped / clipped.norm(), gradient / gradient.norm(), rtol=1e-12)
        if float(gradient.norm()) < 0.99 * max_norm:
            assert torch.equal(clipped, gradient)
        if float(gradient.norm()) > 1.01 * max_norm:  # as long as allowed, but for what keeps 0 / 0 away
            assert float(clipped.norm()) == pytest.approx(max_norm, rel=1e-6 / float(gradient.norm()) + 1e-12)


def test_a_zero_gradient_is_clipped_to_itself() -> None:
    assert formulas.clip_by_norm(torch.zeros(3), 0.5).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_equal_gradients_roll_to_the_sum_of_a_geometric_series(momentum: float) -> None:
    """v_t = g (1 + μ + ... + μ^(t-1)), which converges to g / (1 - μ)."""
    gradient, velocity = gradients(1)[0], torch.zeros(5, dtype=torch.float64)
    for t in range(1, 400):
        velocity = formulas.heavy_ball(gradient, velocity, momentum)
        if t < 10:
            assert torch.allclose(velocity, gradient * sum(momentum**k for k in range(t)), rtol=1e-12)
    assert torch.allclose(velocity, gradient / (1 - momentum), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_total_weight_is_what_the_weights_of_a_running_mean_add_up_to(
    beta: float, dtype: torch.dtype, error: float
) -> None:
    """The weights of m ← β m + (1 - β) x from m = 0 add up to (1 - β) Σ β^age = 1 - β^t for every t."""
    total = torch.zeros((), dtype=dtype)
    for t in range(1, 20_001):
        total = formulas.total_weight(total, beta)
        if t in (1, 2, 7, 100, 5000, 20_000):
            assert float(total) == pytest.approx((1 - beta) * sum(beta**age for age in range(t)), rel=error)
            assert float(total) == pytest.approx(1 - beta**t, rel=error)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.0), (0.0, 0.9), (0.9, 0.999), (0.99, 0.5)])
def test_adam_goes_by_the_means_of_gradients_and_squares_with_weights_that_add_up_to_one(
    beta1: float, beta2: float
) -> None:
    slopes, epsilon = gradients(12), 0.1
    directions = adam(slopes, beta1, beta2, epsilon)
    for t in range(1, 13):
        age = torch.arange(t - 1, -1, -1, dtype=torch.float64)
        means = []
        for beta, x in ((beta1, slopes[:t]), (beta2, slopes[:t].square())):
            weight = beta**age / (beta**age).sum()
            means.append((weight.unsqueeze(-1) * x).sum(0))
        expected = means[0] / (means[1].sqrt() + epsilon)
        assert torch.allclose(directions[t - 1], expected, rtol=1e-9)


def test_adam_without_memory_is_descent_by_signs() -> None:
    slopes = gradients(9)
    assert torch.allclose(adam(slopes, 0.0, 0.0, 1e-12), slopes.sign(), rtol=1e-6)


def test_adam_knows_no_unit_of_the_loss() -> None:
    slopes = gradients(9)
    assert torch.allclose(adam(slopes, 0.9, 0.99, 1e-14), adam(1e3 * slopes, 0.9, 0.99, 1e-14), rtol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_rmsprop_goes_by_the_root_of_the_mean_square(decay: float) -> None:
    """The mean square is Σ (1 - δ) δ^age g² including this gradient; it starts at 0 without bias correction."""
    slopes, square = gradients(9), torch.zeros(5, dtype=torch.float64)
    for t, slope in enumerate(slopes, start=1):
        direction, square = formulas.rmsprop(slope, square, decay, 0.01)
        weight = (1 - decay) * decay ** torch.arange(t - 1, -1, -1, dtype=torch.float64)
        mean = (weight.unsqueeze(-1) * slopes[:t].square()).sum(0)
        assert torch.allclose(square, mean, rtol=1e-12)
        assert torch.allclose(direction, slope / (mean.sqrt() + 0.01), rtol=1e-12)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_schedule_starts_at_1_and_never_rises(name: str) -> None:
    factors = [SCHEDULES[name](p) for p in PROGRESS]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert all(0.0 <= factor <= 1.0 for factor in factors)


def test_constant_stays_at_1() -> None:
    assert {SCHEDULES["constant"](p) for p in PROGRESS} == {1.0}


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_linear_and_cosine_end_at_0_and_are_symmetric(name: str) -> None:
    schedule = SCHEDULES[name]
    assert schedule(1.0) == 0.0
    assert schedule(0.5) == pytest.approx(0.5)
    for p in PROGRESS:
        assert schedule(p) + schedule(1 - p) == pytest.approx(1.0)


def test_linear_falls_evenly_and_cosine_is_flat_at_both_ends() -> None:
    linear, cosine = SCHEDULES["linear"], SCHEDULES["cosine"]
    assert linear(0.3) == pytest.approx(0.7)
    assert cosine(1 / 3) == pytest.approx(0.75)  # (1 + cos 60°) / 2
    step = 1e-4
    assert math.isclose(cosine(step), 1.0, abs_tol=step / 10)
    assert math.isclose(cosine(1 - step), 0.0, abs_tol=step / 10)


def test_inverse_sqrt_falls_like_one_over_the_root_of_time() -> None:
    schedule = SCHEDULES["inverse_sqrt"]
    assert schedule(1.0) == pytest.approx(0.1)
    for p in PROGRESS:
        assert schedule(p) ** -2 == pytest.approx(1 + 99 * p)
