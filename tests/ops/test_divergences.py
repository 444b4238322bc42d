"""Tests of KL divergences against torch and in the limit of small differences."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from pgx.ops.divergences import categorical_kl, expm1_minus, gaussian_kl


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_distributions_far_apart_have_the_divergence_of_torch(seed: int) -> None:
    p, q = (3 * normal(2 * seed + i, 32, 5) for i in range(2))
    ours = categorical_kl(p.log_softmax(-1), q.log_softmax(-1))
    torch.testing.assert_close(ours, kl_divergence(TorchCategorical(logits=p), TorchCategorical(logits=q)))

    mean, log_std, other_mean, other_log_std = (normal(10 * seed + i, 32, 4) for i in range(4))
    theirs = kl_divergence(
        Independent(Normal(mean, log_std.exp()), 1), Independent(Normal(other_mean, other_log_std.exp()), 1)
    )
    torch.testing.assert_close(gaussian_kl(mean, log_std, other_mean, other_log_std), theirs)


@pytest.mark.parametrize("size", [1e-2, 1e-5, 1e-8])
def test_a_small_difference_has_half_its_square_in_the_fisher_metric(size: float) -> None:
    """KL(θ || θ + d) = ½ dᵀF d + O(|d|³): the relative error falls with d, unlike that of a sum with cancellation."""
    logits, moved = normal(0, 32, 5), size * normal(1, 32, 5)
    p = logits.softmax(-1)
    metric = (p * moved.square()).sum(-1) - (p * moved).sum(-1).square()
    ours = categorical_kl(logits.log_softmax(-1), (logits + moved).log_softmax(-1))
    torch.testing.assert_close(ours, metric / 2, rtol=10 * size + 1e-6, atol=0)

    mean, log_std = normal(2, 32, 4), normal(3, 32, 4)
    mean_moved, log_std_moved = size * normal(4, 32, 4), size * normal(5, 32, 4)
    metric = (mean_moved.square() * (-2 * log_std).exp() + 2 * log_std_moved.square()).sum(-1)
    ours = gaussian_kl(mean, log_std, mean + mean_moved, log_std + log_std_moved)
    torch.testing.assert_close(ours, metric / 2, rtol=10 * size + 1e-6, atol=0)


def test_no_divergence_is_negative_and_that_of_equals_is_zero() -> None:
    log_p = normal(0, 1000, 5).log_softmax(-1)
    close = (log_p + 1e-9 * normal(1, 1000, 5)).log_softmax(-1)
    mean, log_std = normal(2, 1000, 4), normal(3, 1000, 4)
    assert (categorical_kl(log_p, close) >= 0).all()
    assert (gaussian_kl(mean, log_std, mean, log_std + 1e-9 * normal(4, 1000, 4)) >= 0).all()
    assert not categorical_kl(log_p, log_p).any() and not gaussian_kl(mean, log_std, mean, log_std).any()


def test_an_excluded_category_costs_nothing_if_impossible_and_everything_if_not() -> None:
    half = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    thirds = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    torch.testing.assert_close(categorical_kl(half, thirds), torch.tensor(math.log(1.5), dtype=torch.float64))
    assert categorical_kl(thirds, half) == math.inf and categorical_kl(half, half) == 0


def test_the_remainder_of_the_exponential_is_its_series() -> None:
    x = torch.tensor([-1e-9, -1e-4, -0.5, 0.0, 1e-9, 1e-4, 0.5], dtype=torch.float64)
    series = sum((x**k / math.factorial(k) for k in range(2, 20)), torch.zeros_like(x))
    torch.testing.assert_close(expm1_minus(x)[[1, 2, 3, 5, 6]], series[[1, 2, 3, 5, 6]], rtol=1e-7, atol=0)
    assert (expm1_minus(x) >= 0).all()
