"""Tests of the gradients of objectives and losses, and of inequalities between them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete
from pgx.networks.mlp import MLPPolicy
from pgx.ops.losses import (
    clipped_surrogate,
    clipped_value_loss,
    joint_loss,
    kl_penalized_surrogate,
    policy_gradient,
    surrogate,
    value_loss,
)
from pgx.ops.params import gradient
from tests.conftest import as_observations

CLIP = 0.2


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_policy(action: ActionSpec) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    policy = MLPPolicy(
        hidden=[5],
        activation="tanh",
        hidden_gain=1.0,
        output_gain=1.0,
        log_std_init=-0.3,
        continuous="gaussian",
    ).make(Continuous((3,)), action, generator)
    return policy.double()


@pytest.mark.parametrize("action", [Discrete(4), MultiDiscrete((2, 3)), Continuous((2,))])
def test_at_equal_policies_the_surrogate_has_the_gradient_of_reinforce(action: ActionSpec) -> None:
    """∇ L = E[ A ∇ log π(a|s) ], computed here row by row."""
    policy, obs, advantage = small_policy(action), as_observations(normal(1, 8, 3)), normal(2, 8)
    parameters = list(policy.parameters())
    with torch.no_grad():
        old = policy(obs)
        actions = old.sample(torch.Generator().manual_seed(3))
        old_log_prob = old.log_prob(actions)
    reinforce = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for row in range(8):
        log_prob = policy(obs[torch.tensor([row])]).log_prob(actions[row : row + 1])
        reinforce += advantage[row] * gradient(log_prob.sum(), parameters) / 8

    def log_ratio() -> Tensor:
        return policy(obs).log_prob(actions) - old_log_prob

    assert reinforce.abs().max() > 0.01
    assert torch.allclose(
        gradient(surrogate(log_ratio(), advantage), parameters), reinforce, rtol=1e-10, atol=1e-12
    )
    clipped = gradient(clipped_surrogate(log_ratio(), advantage, CLIP), parameters)
    assert torch.allclose(clipped, reinforce, rtol=1e-10, atol=1e-12)


def test_at_equal_policies_the_surrogate_is_the_mean_advantage() -> None:
    advantage = normal(0, 9)
    assert torch.allclose(surrogate(torch.zeros(9), advantage), advantage.mean())
    assert torch.allclose(clipped_surrogate(torch.zeros(9), advantage, CLIP), advantage.mean())


def test_surrogate_reweights_a_sum_over_actions_exactly() -> None:
    """Under μ uniform over K actions E_μ[π/μ A] = Σ_a π(a) A(a)."""
    logits, advantage = normal(0, 5), normal(1, 5)
    log_ratio = logits.log_softmax(0) - torch.log(torch.tensor(1 / 5, dtype=torch.float64))
    assert torch.allclose(surrogate(log_ratio, advantage), logits.softmax(0) @ advantage)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [
        (1.5, 2.0, True),
        (1.5, -2.0, False),
        (0.5, 2.0, False),
        (0.5, -2.0, True),
        (1.1, 2.0, False),
        (0.9, -2.0, False),
    ],
)
def test_the_clipped_gradient_vanishes_only_where_leaving_would_be_rewarded(
    ratio: float, advantage: float, clipped: bool
) -> None:
    """Four cases outside the interval and two inside; a second row shows that rows are independent."""
    log_ratio = torch.tensor([ratio, 1.0], dtype=torch.float64).log().requires_grad_()
    a = torch.tensor([advantage, 1.0], dtype=torch.float64)
    (actual,) = torch.autograd.grad(clipped_surrogate(log_ratio, a, CLIP), log_ratio)
    (unclipped,) = torch.autograd.grad(surrogate(log_ratio, a), log_ratio)
    assert float(unclipped[0]) == pytest.approx(ratio * advantage / 2)
    assert float(actual[0]) == (0.0 if clipped else float(unclipped[0]))
    assert float(actual[1]) == float(unclipped[1])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("clip_range", [0.05, 0.2, 0.9])
def test_the_clipped_surrogate_never_exceeds_the_surrogate(seed: int, clip_range: float) -> None:
    for log_ratio, advantage in zip(normal(seed, 200), normal(seed + 10, 200), strict=True):
        assert clipped_surrogate(log_ratio, advantage, clip_range) <= surrogate(log_ratio, advantage)


def test_both_surrogates_agree_while_every_ratio_stays_in_the_interval() -> None:
    ratio = torch.linspace(1 - CLIP, 1 + CLIP, 21, dtype=torch.float64)[1:-1]
    advantage = normal(0, 19)
    actual, expected = clipped_surrogate(ratio.log(), advantage, CLIP), surrogate(ratio.log(), advantage)
    assert torch.allclose(actual, expected, rtol=1e-14)


def test_the_penalty_takes_its_price_per_nat_from_the_surrogate() -> None:
    log_ratio, advantage, kl = 0.3 * normal(0, 7), normal(1, 7), normal(2, 7).square()
    plain = surrogate(log_ratio, advantage)
    assert torch.equal(kl_penalized_surrogate(log_ratio, advantage, kl, 0.0), plain)
    assert torch.allclose(kl_penalized_surrogate(log_ratio, advantage, kl, 3.0), plain - 3 * kl.mean())


@pytest.mark.parametrize("forward", [True, False])
def test_the_penalised_optimum_over_all_policies_is_the_one_in_closed_form(forward: bool) -> None:
    """Over all π at one state, μ the weights of the sum, L = Σ π A - β KL is stationary at

    π ∝ μ exp(A/β) for KL(π || μ), mirror descent's step; at π = β μ / (λ - A) for KL(μ || π).
    """
    beta, advantage = 0.8, normal(0, 5)
    mu = normal(1, 5).softmax(0)
    if forward:
        low, high = advantage.max(), advantage.max() + beta  # λ such that π sums to 1, by bisection
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if (beta * mu / (middle - advantage)).sum() > 1 else (low, middle)
        optimum = beta * mu / (high - advantage)
    else:
        optimum = (mu.log() + advantage / beta).softmax(0)
    logits = optimum.log().requires_grad_()
    log_pi = logits.log_softmax(0)
    kl = (mu * (mu.log() - log_pi)).sum() if forward else (log_pi.exp() * (log_pi - mu.log())).sum()
    # A mean over 5 equal rows weighted by 5 μ is the expectation under μ.
    objective = kl_penalized_surrogate(log_pi - mu.log(), 5 * mu * advantage, kl, beta)
    assert torch.allclose(optimum.sum(), torch.ones((), dtype=torch.float64))
    (g,) = torch.autograd.grad(objective, logits)
    assert float(g.abs().max()) < 1e-12
    assert float((optimum - mu).abs().max()) > 0.05


def test_the_gradient_of_the_value_loss_is_the_mean_error() -> None:
    value, target = normal(0, 12), normal(1, 12)
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (actual,) = torch.autograd.grad(value_loss(value + shift, target), shift)
    assert torch.allclose(actual, (value - target).mean())
    value.requires_grad_()
    (rows,) = torch.autograd.grad(value_loss(value, target), value)
    assert torch.allclose(rows, (value - target).detach() / 12)


def test_the_value_loss_is_half_the_mean_squared_error() -> None:
    value, target = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 7.0])
    assert float(value_loss(value, target)) == pytest.approx((0 + 4 + 16) / 6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clipping_never_makes_the_value_loss_smaller(seed: int) -> None:
    old, moved, target = normal(seed, 100), normal(seed + 10, 100), normal(seed + 20, 100)
    larger = 0
    for v0, dv, g in zip(old, moved, target, strict=True):
        clipped, plain = clipped_value_loss(v0 + dv, v0, g, 0.5), value_loss(v0 + dv, g)
        assert clipped >= plain
        larger += int(clipped > plain + 1e-9)
    assert 0 < larger < 100


def test_clipping_changes_nothing_while_values_stay_in_range() -> None:
    old, target = normal(0, 50), normal(1, 50)
    value = old + 0.499 * torch.tanh(normal(2, 50))
    assert torch.allclose(clipped_value_loss(value, old, target, 0.5), value_loss(value, target), rtol=1e-13)


@pytest.mark.parametrize(
    ("value", "target", "gradient_left"),
    [(2.0, 3.0, 0.0), (2.0, 0.0, 2.0), (-2.0, -3.0, 0.0), (-2.0, 0.0, -2.0)],
)
def test_a_value_that_left_its_range_towards_the_target_earns_nothing(
    value: float, target: float, gradient_left: float
) -> None:
    """V_old = 0, ε = 1: beyond ±1 the gradient is 0 if V moved towards the target, and else the error."""
    v = torch.tensor([value], requires_grad=True)
    loss = clipped_value_loss(v, torch.zeros(1), torch.tensor([target]), 1.0)
    (actual,) = torch.autograd.grad(loss, v)
    assert float(actual) == gradient_left


OF_ROWS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "policy_gradient": lambda x, y, _: policy_gradient(x, y),
    "surrogate": lambda x, y, _: surrogate(x, y),
    "clipped_surrogate": lambda x, y, _: clipped_surrogate(x, y, CLIP),
    "kl_penalized_surrogate": lambda x, y, z: kl_penalized_surrogate(x, y, z, 0.5),
    "value_loss": lambda x, y, _: value_loss(x, y),
    "joint_loss": lambda x, y, z: joint_loss(x, y, z, 0.5),
    "clipped_value_loss": lambda x, y, z: clipped_value_loss(x, y, z, CLIP),
}


@pytest.mark.parametrize("name", OF_ROWS)
def test_a_batch_twice_has_the_loss_of_the_batch(name: str) -> None:
    """A loss is a mean over rows, so that its gradient does not grow with the batch."""
    columns = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once, twice = (OF_ROWS[name](*rows) for rows in (columns, columns.repeat(1, 2)))
    torch.testing.assert_close(once, twice)
