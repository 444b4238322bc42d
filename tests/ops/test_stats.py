"""Tests of the laws of statistics."""

import math

import pytest
import torch
from torch import Tensor

from pgx.ops.stats import (
    at_bound,
    clip_fraction,
    effective_sample_size,
    explained_variance,
    fraction_outside,
    standardize,
)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1,), (7,), (20, 4)])
def test_ess_is_its_formula(seed: int, shape: tuple[int, ...]) -> None:
    log_ratio = normal(seed, *shape)
    w = log_ratio.exp()
    expected = float(w.sum() ** 2 / (w.numel() * w.square().sum()))
    assert float(effective_sample_size(log_ratio)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("log_weight", [0.0, -3.0, 500.0])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_ess_of_equal_weights_is_one(log_weight: float, n: int) -> None:
    ess = float(effective_sample_size(torch.full((n,), log_weight)))
    assert ess == pytest.approx(1.0, abs=1e-9)
    assert ess <= 1.0


@pytest.mark.parametrize("n", [2, 5, 100])
def test_ess_is_1_over_n_when_one_weight_dominates(n: int) -> None:
    log_ratio = torch.zeros(n)
    log_ratio[n // 2] = 200.0
    assert float(effective_sample_size(log_ratio)) == pytest.approx(1 / n)


@pytest.mark.parametrize("shift", [-800.0, -1.0, 2.0, 800.0])
def test_ess_does_not_depend_on_the_scale_of_the_weights(shift: float) -> None:
    log_ratio = normal(0, 50)
    assert float(effective_sample_size(log_ratio + shift)) == pytest.approx(
        float(effective_sample_size(log_ratio)), rel=1e-9
    )


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-4, 1.0, 30.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ess_lies_between_1_over_n_and_one(seed: int, spread: float) -> None:
    ess = float(effective_sample_size(spread * normal(seed, 64, dtype=torch.float32)))
    assert 1 / 64 - 1e-12 <= ess <= 1.0


def test_ess_falls_as_weights_spread() -> None:
    log_ratio = normal(0, 100)
    ess = [float(effective_sample_size(spread * log_ratio)) for spread in (0.0, 0.1, 0.5, 1.0, 3.0)]
    assert ess == sorted(ess, reverse=True)
    assert len(set(ess)) == len(ess)


def test_ess_of_nan_is_nan() -> None:
    assert math.isnan(float(effective_sample_size(torch.tensor([0.0, math.nan]))))


def test_clip_fraction_counts_ratios_outside_the_interval() -> None:
    ratio = torch.tensor([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 4.0, 1.0])
    assert float(clip_fraction(ratio.log(), 0.2)) == 4 / 8
    assert float(clip_fraction(ratio.log(), 0.6)) == 1 / 8
    assert float(clip_fraction(ratio.log(), 3.5)) == 0.0


@pytest.mark.parametrize("clip_range", [0.1, 0.3])
def test_clip_fraction_is_its_definition(clip_range: float) -> None:
    log_ratio = normal(1, 40, 5) * 0.3
    outside = [not 1 - clip_range <= math.exp(x) <= 1 + clip_range for x in log_ratio.flatten()]
    assert 0 < sum(outside) < 200
    assert float(clip_fraction(log_ratio, clip_range)) == pytest.approx(sum(outside) / 200)


def test_perfect_prediction_explains_everything() -> None:
    target = normal(0, 30)
    assert float(explained_variance(target, target)) == 1.0


def test_the_mean_explains_nothing() -> None:
    target = normal(0, 30)
    assert float(explained_variance(target.mean().expand(30), target)) == pytest.approx(0.0, abs=1e-12)


def test_a_prediction_worse_than_the_mean_explains_less_than_nothing() -> None:
    target = normal(0, 30)
    assert float(explained_variance(-target, target)) == pytest.approx(-3.0)  # 1 - Var(2 y) / Var(y)


def test_explained_variance_is_its_definition() -> None:
    prediction, target = normal(0, 6, 5), normal(1, 6, 5)
    error = (target - prediction).flatten().tolist()
    y = target.flatten().tolist()

    def variance(x: list[float]) -> float:
        mean = sum(x) / len(x)
        return sum((v - mean) ** 2 for v in x) / len(x)

    assert float(explained_variance(prediction, target)) == pytest.approx(1 - variance(error) / variance(y))


@pytest.mark.parametrize("shift", [-50.0, 3.0])
@pytest.mark.parametrize("scale", [0.01, 20.0])
def test_explained_variance_ignores_a_constant_error_and_the_unit(shift: float, scale: float) -> None:
    prediction, target = normal(0, 30), normal(1, 30)
    expected = float(explained_variance(prediction, target))
    assert float(explained_variance(prediction + shift, target)) == pytest.approx(expected)
    assert float(explained_variance(scale * prediction, scale * target)) == pytest.approx(expected)


@pytest.mark.parametrize("constant", [0.0, 5.0, -0.25, 0.1])
def test_explained_variance_of_a_constant_target_is_undefined(constant: float) -> None:
    assert math.isnan(float(explained_variance(normal(0, 30).float(), torch.full((30,), constant))))


def test_explained_variance_of_a_constant_float64_target_is_undefined() -> None:
    assert math.isnan(float(explained_variance(normal(0, 7), torch.full((7,), 0.1, dtype=torch.float64))))


@pytest.mark.parametrize("shape", [(50,), (8, 4)])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_standardize_gives_mean_0_and_standard_deviation_1(shape: tuple[int, ...], scale: float) -> None:
    x = scale * (normal(0, *shape) + 3)
    z = standardize(x)
    assert z.shape == x.shape
    assert float(z.mean()) == pytest.approx(0.0, abs=1e-9)
    assert float(z.std(correction=0)) == pytest.approx(1.0, abs=1e-5)


def test_standardize_keeps_order_and_proportions() -> None:
    x = normal(0, 50)
    z = standardize(x)
    assert torch.equal(z.argsort(), x.argsort())
    assert torch.allclose((z[1:] - z[:-1]) / (z[1] - z[0]), (x[1:] - x[:-1]) / (x[1] - x[0]))


@pytest.mark.parametrize("constant", [0.0, 1.0, -4.5])
def test_standardize_makes_a_constant_zero(constant: float) -> None:
    assert (standardize(torch.full((10,), constant)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 10, 4097])
@pytest.mark.parametrize("constant", [0.1, -1.1, 1234.567, 1e-30, 1e30])
def test_standardize_makes_a_constant_zero_although_its_mean_rounds(
    constant: float, rows: int, dtype: torch.dtype
) -> None:
    x = torch.full((rows,), constant, dtype=dtype)
    assert (standardize(x) == 0).all()
    third = 1 / 3  # no power of two: the mean over ranks rounds once more
    assert (standardize(x, lambda part: 3 * third * (part.sum() / rows)) == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-8, 1e-4, 1.0, 1e8, 1e30])
@pytest.mark.parametrize("offset", [0.0, -7.0, 1e3])
def test_standardize_does_not_depend_on_the_unit_or_the_origin(scale: float, offset: float) -> None:
    x = normal(0, 64)
    z = standardize(x)
    assert torch.allclose(standardize(scale * (x + offset)), z, rtol=1e-9, atol=1e-11)
    narrow = (scale * (x + offset)).float()
    assert torch.allclose(standardize(narrow).double(), z, atol=1e-6 * max(1.0, abs(offset)))


def test_standardize_keeps_a_single_step_of_float32_among_many_rows() -> None:
    x = torch.full((100_000,), 1.0)
    x[17] = torch.nextafter(x[17], torch.tensor(2.0))
    z = standardize(x)
    assert float(z[17]) == pytest.approx(100_000**0.5, rel=1e-3)


def test_standardize_does_not_hide_nan() -> None:
    assert standardize(torch.tensor([1.0, math.nan, 2.0])).isnan().all()


def test_a_number_at_its_bound_is_one_that_clipping_made_or_left_there() -> None:
    raw = torch.tensor([-3.0, -2.0, 0.0, 1.999, 2.0, 5.0])
    assert at_bound(raw.clamp(-2.0, 2.0), 2.0).tolist() == [1, 1, 0, 0, 1, 1]
    assert at_bound(raw, math.inf).sum() == 0


def test_the_fraction_outside_is_of_components_that_clipping_moves() -> None:
    low, high = torch.tensor([-1.0, -math.inf, 0.0]), torch.tensor([1.0, 2.0, 4.0])
    rows = torch.tensor(
        [[0.0, 0.0, 0.0], [1.0, 2.0, 4.0], [1.1, 0.0, 2.0], [-1.1, 2.1, 2.0], [-9.0, 3.0, 5.0]]
    )
    assert torch.allclose(fraction_outside(rows, low, high), torch.tensor([0.0, 0.0, 1 / 3, 2 / 3, 1.0]))
    # Rounding is relative to the reach: the same in any unit, and none of it counts.
    unit = 1e-8
    assert torch.equal(
        fraction_outside(unit * rows, unit * low, unit * high), fraction_outside(rows, low, high)
    )
    rounded = torch.tensor([[1.0 + 1e-7, -1e20, 4.0 + 1e-6]])
    assert fraction_outside(rounded, low, high).tolist() == [0.0]
