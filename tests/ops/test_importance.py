"""Tests of importance weights against explicit products and exact expectations."""

import math

import pytest
import torch
from torch import Tensor

from pgx.ops.importance import (
    log_per_decision_weights,
    log_self_normalized_weights,
    log_trajectory_weights,
    log_truncated_weights,
    per_decision_weights,
    trajectory_weights,
)

STEPS, ENVS = 11, 5


def random_steps(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_ratio = torch.randn((STEPS, ENVS), generator=generator, dtype=torch.float64)
    terminated = torch.rand((STEPS, ENVS), generator=generator) < 0.2
    truncated = torch.rand((STEPS, ENVS), generator=generator) < 0.2
    terminated[:, 0] = truncated[:, 0] = truncated[:, 1] = terminated[:, 2] = False
    return log_ratio, terminated, truncated


def episode(done: list[bool], t: int) -> range:
    """Return the rows of the episode that contains row t."""
    start = max((k + 1 for k in range(t) if done[k]), default=0)
    stop = next((k + 1 for k in range(t, len(done)) if done[k]), len(done))
    return range(start, stop)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_weights_are_products_of_ratios_within_the_episode(seed: int) -> None:
    log_ratio, terminated, truncated = random_steps(seed)
    whole = trajectory_weights(log_ratio, terminated, truncated)
    so_far = per_decision_weights(log_ratio, terminated, truncated)
    for i in range(ENVS):
        ratio = [math.exp(x) for x in log_ratio[:, i]]
        done = (terminated | truncated)[:, i].tolist()
        for t in range(STEPS):
            rows = episode(done, t)
            assert float(whole[t, i]) == pytest.approx(math.prod(ratio[k] for k in rows), rel=1e-11)
            assert float(so_far[t, i]) == pytest.approx(
                math.prod(ratio[k] for k in rows if k <= t), rel=1e-11
            )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_weights_agree_in_the_last_row_of_an_episode(seed: int) -> None:
    log_ratio, terminated, truncated = random_steps(seed)
    last = terminated | truncated
    last[-1] = True
    whole = trajectory_weights(log_ratio, terminated, truncated)
    so_far = per_decision_weights(log_ratio, terminated, truncated)
    assert torch.allclose(whole[last], so_far[last], rtol=1e-11)


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_in_an_episode_of_one_step_both_weights_are_the_ratio(end: str) -> None:
    log_ratio, never, _ = random_steps(0)
    never = torch.zeros_like(never)
    always = ~never
    ends = (always, never) if end == "terminated" else (never, always)
    assert torch.allclose(trajectory_weights(log_ratio, *ends), log_ratio.exp(), rtol=1e-12)
    assert torch.allclose(per_decision_weights(log_ratio, *ends), log_ratio.exp(), rtol=1e-12)


def test_rows_that_are_not_data_carry_weight_one() -> None:
    log_ratio, terminated, truncated = random_steps(0)
    on_policy = torch.zeros_like(log_ratio)
    assert (trajectory_weights(on_policy, terminated, truncated) == 1).all()
    assert (per_decision_weights(on_policy, terminated, truncated) == 1).all()


def test_an_action_that_pi_never_takes_leaves_the_episode_before_it_alone() -> None:
    log_ratio = torch.tensor([[0.5], [-math.inf], [0.5]])
    terminated = torch.tensor([[True], [False], [True]])
    weights = trajectory_weights(log_ratio, terminated, torch.zeros_like(terminated))
    assert weights.flatten().tolist() == pytest.approx([math.exp(0.5), 0.0, 0.0])


def two_step_process(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """All four action sequences of two steps as environments: (log_ratio [2, 4], P under mu, P under pi).

    The second step's action depends on the first's.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand((2, 2), generator=generator, dtype=torch.float64)
    second = torch.rand((2, 2, 2), generator=generator, dtype=torch.float64)
    first, second = first / first.sum(-1, keepdim=True), second / second.sum(-1, keepdim=True)
    sequences = [(a, b) for a in range(2) for b in range(2)]
    mu, pi = (
        torch.stack([torch.stack([first[k, a], second[k, a, b]]) for a, b in sequences], 1) for k in range(2)
    )
    return (pi / mu).log(), mu.prod(0), pi.prod(0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_turn_expectations_under_mu_into_expectations_under_pi(seed: int) -> None:
    log_ratio, mu, pi = two_step_process(seed)
    terminated = torch.tensor([[False] * 4, [True] * 4])
    never = torch.zeros_like(terminated)
    whole = trajectory_weights(log_ratio, terminated, never)
    so_far = per_decision_weights(log_ratio, terminated, never)
    one = torch.ones(2, dtype=torch.float64)
    assert torch.allclose(whole @ mu, one) and torch.allclose(so_far @ mu, one)
    first_action = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    outcome = torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    assert torch.allclose((whole * outcome) @ mu, (pi @ outcome).expand(2))
    assert torch.allclose(so_far[1] * outcome @ mu, pi @ outcome)
    # What step 0 decided is known from step 0 on: the shorter product is enough for it.
    assert torch.allclose(so_far[0] * first_action @ mu, pi @ first_action)
    # Given the first action, the whole product averages to the product so far.
    for a in (slice(0, 2), slice(2, 4)):
        assert torch.allclose(whole[0, a] @ mu[a] / mu[a].sum(), so_far[0, a][0])


def test_logs_of_weights_are_their_logs_and_reach_where_no_float_does() -> None:
    log_ratio, terminated, truncated = random_steps(0)
    for log_of, of in (
        (log_trajectory_weights, trajectory_weights),
        (log_per_decision_weights, per_decision_weights),
    ):
        ends = (terminated, truncated)
        assert torch.allclose(log_of(log_ratio, *ends), of(log_ratio, *ends).log(), rtol=1e-10, atol=1e-12)
        assert bool(log_of(1000 * log_ratio, *ends).isfinite().all())


def test_truncated_weights_are_the_smaller_of_weight_and_bound() -> None:
    log_weight, _, _ = random_steps(1)
    for bound in (0.3, 1.0, 2.5):
        assert torch.allclose(
            log_truncated_weights(log_weight, bound).exp(), log_weight.exp().clamp(max=bound)
        )
    assert torch.equal(log_truncated_weights(log_weight, 1e9), log_weight)


def test_self_normalized_weights_have_mean_one_and_know_no_common_factor() -> None:
    log_weight, _, _ = random_steps(2)
    weight = log_self_normalized_weights(log_weight).exp()
    assert torch.allclose(weight.mean(-1), torch.ones(STEPS, dtype=torch.float64))
    assert torch.allclose(weight[:, :1] / weight[:, 1:], (log_weight[:, :1] - log_weight[:, 1:]).exp())
    assert torch.allclose(log_self_normalized_weights(log_weight - 5000).exp(), weight, rtol=1e-9)
    # Equal weights are 1 each, whatever they were.
    assert float(log_self_normalized_weights(torch.full((2, 4), -3.0)).abs().max()) < 1e-6
