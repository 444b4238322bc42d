"""Tests of every estimator against its definition as loops over the steps of one episode."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from pgx.ops.returns import backward_recurrence, discounted_returns, gae, n_step_returns, vtrace

STEPS, ENVS = 13, 6
SEEDS = [0, 1, 2, 3]


@dataclass(frozen=True)
class Data:
    """Random rollout, [T, N] each; within an episode next_value[t] is value[t + 1]."""

    reward: Tensor
    value: Tensor
    next_value: Tensor
    terminated: Tensor
    truncated: Tensor
    log_ratio: Tensor
    discount: Tensor

    @property
    def ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (V(s'), terminated, truncated), in the order of every estimator's arguments."""
        return self.next_value, self.terminated, self.truncated


def random_data(seed: int, per_step_discount: bool) -> Data:
    generator = torch.Generator().manual_seed(seed)
    shape = (STEPS, ENVS)

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def event(probability: float) -> Tensor:
        return torch.rand(shape, generator=generator) < probability

    value, terminated, truncated = normal(), event(0.15), event(0.15)
    terminated[:, 0] = truncated[:, 0] = truncated[:, 1] = terminated[:, 2] = False
    terminated[4, 3] = truncated[4, 3] = True  # both at once: the task did end
    own_successor = terminated | truncated
    own_successor[-1] = True
    next_value = torch.where(own_successor, normal(), torch.cat([value[1:], value[-1:]]))
    discount = torch.full(shape, 0.9, dtype=torch.float64)
    if per_step_discount:
        discount = torch.rand(shape, generator=generator, dtype=torch.float64)
    return Data(normal(), value, next_value, terminated, truncated, 0.7 * normal(), discount)


@pytest.fixture(params=[(seed, per_step) for seed in SEEDS for per_step in (False, True)])
def data(request: pytest.FixtureRequest) -> Data:
    return random_data(*request.param)


def last_step(data: Data, t: int, i: int) -> int:
    """Return the last row of the episode that contains row t of environment i."""
    for k in range(t, STEPS):
        if data.terminated[k, i] or data.truncated[k, i]:
            return k
    return STEPS - 1


def successor_value(data: Data, t: int, i: int) -> float:
    return 0.0 if data.terminated[t, i] else float(data.next_value[t, i])


def td_error(data: Data, t: int, i: int) -> float:
    target = float(data.reward[t, i]) + float(data.discount[t, i]) * successor_value(data, t, i)
    return target - float(data.value[t, i])


def product(data: Data, start: int, stop: int, i: int) -> float:
    """Return Π discount over the rows start..stop-1."""
    return math.prod(float(data.discount[k, i]) for k in range(start, stop))


def table(entry: Callable[[int, int], float]) -> Tensor:
    """Return the tensor [T, N] of entry(t, i)."""
    return torch.tensor([[entry(t, i) for i in range(ENVS)] for t in range(STEPS)], dtype=torch.float64)


def close(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_gae_is_the_discounted_sum_of_td_errors_to_the_end_of_the_episode(
    data: Data, gae_lambda: float
) -> None:
    def definition(t: int, i: int) -> float:
        total = 0.0
        for l in range(last_step(data, t, i) - t + 1):  # noqa: E741 (the paper's letter)
            total += product(data, t, t + l, i) * gae_lambda**l * td_error(data, t + l, i)
        return total

    actual = gae(data.reward, data.value, *data.ends, data.discount, gae_lambda)
    assert close(actual, table(definition))


def test_gae_with_lambda_0_is_the_td_error(data: Data) -> None:
    actual = gae(data.reward, data.value, *data.ends, data.discount, 0.0)
    assert close(actual, table(lambda t, i: td_error(data, t, i)))


def test_gae_with_lambda_1_is_the_return_minus_the_value(data: Data) -> None:
    actual = gae(data.reward, data.value, *data.ends, data.discount, 1.0)
    assert close(actual, discounted_returns(data.reward, *data.ends, data.discount) - data.value)


def test_gae_by_hand() -> None:
    """γ = λ = 1/2, so γ λ = 1/4; rows 0-1 are truncated, rows 2-3 terminate, row 4 goes on.

    δ_0 = 1 + 1/2 · 2 - 1   = 1        A_1 = δ_1             = 4
    δ_1 = 2 + 1/2 · 8 - 2   = 4        A_0 = δ_0 + 1/4 · 4   = 2      V = 8 is bootstrapped, row 2 is not seen
    δ_2 = 3 + 1/2 · 4 - 6   = -1       A_3 = δ_3             = 4
    δ_3 = 8 + 1/2 · 0 - 4   = 4        A_2 = δ_2 + 1/4 · 4   = 0      the 100 behind the end does not count
    δ_4 = 5 + 1/2 · 6 - 10  = -2       A_4 = δ_4             = -2     V = 6 is bootstrapped
    """
    reward = torch.tensor([[1.0], [2.0], [3.0], [8.0], [5.0]])
    value = torch.tensor([[1.0], [2.0], [6.0], [4.0], [10.0]])
    next_value = torch.tensor([[2.0], [8.0], [4.0], [100.0], [6.0]])
    truncated = torch.tensor([[False], [True], [False], [False], [False]])
    terminated = torch.tensor([[False], [False], [False], [True], [False]])
    actual = gae(reward, value, next_value, terminated, truncated, 0.5, 0.5)
    assert actual.flatten().tolist() == [2.0, 4.0, 0.0, 4.0, -2.0]


def test_discounted_returns_run_to_the_end_of_the_episode(data: Data) -> None:
    def definition(t: int, i: int) -> float:
        end = last_step(data, t, i)
        rewards = sum(product(data, t, k, i) * float(data.reward[k, i]) for k in range(t, end + 1))
        return rewards + product(data, t, end + 1, i) * successor_value(data, end, i)

    assert close(discounted_returns(data.reward, *data.ends, data.discount), table(definition))


@pytest.mark.parametrize("n", [1, 2, 3, 5, STEPS - 1, STEPS, STEPS + 4])
def test_n_step_returns_take_at_most_n_rewards_and_then_the_critic(data: Data, n: int) -> None:
    def definition(t: int, i: int) -> float:
        end = min(t + n - 1, last_step(data, t, i))
        rewards = sum(product(data, t, k, i) * float(data.reward[k, i]) for k in range(t, end + 1))
        return rewards + product(data, t, end + 1, i) * successor_value(data, end, i)

    assert close(n_step_returns(data.reward, *data.ends, data.discount, n), table(definition))


def test_one_step_returns_are_td_targets(data: Data) -> None:
    actual = n_step_returns(data.reward, *data.ends, data.discount, 1)
    assert close(actual, table(lambda t, i: td_error(data, t, i)) + data.value)


@pytest.mark.parametrize("n", [STEPS, STEPS + 1, 10 * STEPS])
def test_n_step_returns_of_the_whole_rollout_are_discounted_returns(data: Data, n: int) -> None:
    actual = n_step_returns(data.reward, *data.ends, data.discount, n)
    assert close(actual, discounted_returns(data.reward, *data.ends, data.discount))


@pytest.mark.parametrize("n", [0, -1])
def test_n_step_returns_refuse_fewer_than_one_step(n: int) -> None:
    data = random_data(0, False)
    with pytest.raises(ValueError, match="n: "):
        n_step_returns(data.reward, *data.ends, 0.9, n)


@pytest.mark.parametrize(("rho_clip", "c_clip"), [(1.0, 1.0), (2.0, 0.8), (0.5, 1.5), (math.inf, math.inf)])
@pytest.mark.parametrize("trace_lambda", [1.0, 0.7])
def test_vtrace_is_equation_1_of_impala(
    data: Data, rho_clip: float, c_clip: float, trace_lambda: float
) -> None:
    def rho(t: int, i: int) -> float:
        return min(rho_clip, math.exp(data.log_ratio[t, i]))

    def trace(t: int, i: int) -> float:
        return trace_lambda * min(c_clip, math.exp(data.log_ratio[t, i]))

    def target(t: int, i: int) -> float:
        total = float(data.value[t, i])
        for k in range(t, last_step(data, t, i) + 1):
            traces = math.prod(trace(j, i) for j in range(t, k))
            total += product(data, t, k, i) * traces * rho(k, i) * td_error(data, k, i)
        return total

    def advantage(t: int, i: int) -> float:
        following = successor_value(data, t, i) if last_step(data, t, i) == t else target(t + 1, i)
        q = float(data.reward[t, i]) + float(data.discount[t, i]) * following
        return q - float(data.value[t, i])

    actual = vtrace(
        data.log_ratio, data.reward, data.value, *data.ends, data.discount, rho_clip, c_clip, trace_lambda
    )
    assert close(actual[0], table(target))
    assert close(actual[1], table(advantage))


@pytest.mark.parametrize("bars", [(1.0, 1.0), (1.0, 3.0), (2.0, 1.0)])
def test_vtrace_on_policy_is_the_n_step_bellman_target(data: Data, bars: tuple[float, float]) -> None:
    on_policy = torch.zeros_like(data.log_ratio)
    target, advantage = vtrace(on_policy, data.reward, data.value, *data.ends, data.discount, *bars, 1.0)
    assert close(target, discounted_returns(data.reward, *data.ends, data.discount))
    assert close(advantage, gae(data.reward, data.value, *data.ends, data.discount, 1.0))


def test_vtrace_on_policy_with_lambda_is_the_lambda_return(data: Data) -> None:
    on_policy = torch.zeros_like(data.log_ratio)
    target, _ = vtrace(on_policy, data.reward, data.value, *data.ends, data.discount, 1.0, 1.0, 0.8)
    assert close(target - data.value, gae(data.reward, data.value, *data.ends, data.discount, 0.8))


def test_vtrace_without_traces_is_one_weighted_td_step(data: Data) -> None:
    target, _ = vtrace(data.log_ratio, data.reward, data.value, *data.ends, data.discount, 1.5, 1.0, 0.0)
    step = data.log_ratio.exp().clamp(max=1.5) * table(lambda t, i: td_error(data, t, i))
    assert close(target, data.value + step)


def all_estimates(data: Data) -> dict[str, Tensor]:
    target, advantage = vtrace(
        data.log_ratio, data.reward, data.value, *data.ends, data.discount, 1.0, 1.0, 0.9
    )
    return {
        "gae": gae(data.reward, data.value, *data.ends, data.discount, 0.9),
        "discounted_returns": discounted_returns(data.reward, *data.ends, data.discount),
        "2-step returns": n_step_returns(data.reward, *data.ends, data.discount, 2),
        "5-step returns": n_step_returns(data.reward, *data.ends, data.discount, 5),
        "vtrace target": target,
        "vtrace advantage": advantage,
    }


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_crosses_the_end_of_an_episode(seed: int, end: str) -> None:
    data, cut = random_data(seed, True), 6
    getattr(data, end)[cut] = True
    elsewhere = random_data(seed + 100, True)

    def after_the_end(name: str) -> Tensor:
        return torch.cat([getattr(data, name)[: cut + 1], getattr(elsewhere, name)[cut + 1 :]])

    names = ("reward", "value", "next_value", "terminated", "truncated", "log_ratio", "discount")
    changed = replace(data, **{name: after_the_end(name) for name in names})
    before, after = all_estimates(data), all_estimates(changed)
    for name in before:
        assert torch.equal(before[name][: cut + 1], after[name][: cut + 1]), name
        assert not close(before[name][cut + 1 :], after[name][cut + 1 :]), name


def test_rewards_flow_back_to_the_first_step_of_an_episode_that_does_not_end() -> None:
    """The converse of the law above: environment 0 neither terminates nor is truncated."""
    data = random_data(0, False)
    reward = data.reward.clone()
    reward[-1, 0] += 1.0
    changed = replace(data, reward=reward)
    for name in ("gae", "discounted_returns", "vtrace target", "vtrace advantage"):
        difference = all_estimates(changed)[name] - all_estimates(data)[name]
        assert (difference[:, 0] > 0).all(), name
        assert (difference[:, 1:] == 0).all(), name


def test_the_value_behind_a_termination_is_never_read(data: Data) -> None:
    unread = replace(data, next_value=data.next_value.masked_fill(data.terminated, math.nan))
    expected, actual = all_estimates(data), all_estimates(unread)
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


def test_the_value_behind_a_truncation_and_the_last_row_is_bootstrapped(data: Data) -> None:
    """One more unit of V(s') adds `discount` to every on-policy estimate of that row."""
    bootstrapped = data.truncated.clone()
    bootstrapped[-1] = True
    bootstrapped &= ~data.terminated
    on_policy = replace(data, log_ratio=torch.zeros_like(data.log_ratio))
    more = replace(on_policy, next_value=data.next_value + bootstrapped.to(torch.float64))
    before, after = all_estimates(on_policy), all_estimates(more)
    for name in before:
        gained = (after[name] - before[name])[bootstrapped]
        assert close(gained, data.discount[bootstrapped]), name


def test_a_number_and_a_tensor_of_that_number_discount_alike() -> None:
    data = random_data(0, False)
    actual = gae(data.reward, data.value, *data.ends, 0.9, 0.8)
    assert close(actual, gae(data.reward, data.value, *data.ends, data.discount, 0.8))
    actual = n_step_returns(data.reward, *data.ends, 0.9, 3)
    assert close(actual, n_step_returns(data.reward, *data.ends, data.discount, 3))


def test_estimates_leave_their_arguments_alone() -> None:
    data, untouched = random_data(0, True), random_data(0, True)
    all_estimates(data)
    for name in ("reward", "value", "next_value", "terminated", "truncated", "log_ratio", "discount"):
        assert torch.equal(getattr(data, name), getattr(untouched, name)), name


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 64, 100])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_backward_recurrence_solves_its_equation(steps: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(steps)
    x = torch.randn((steps, *shape), generator=generator, dtype=torch.float64)
    decay = 1.1 * torch.rand((steps, *shape), generator=generator, dtype=torch.float64)
    decay = decay * (torch.rand((steps, *shape), generator=generator) > 0.05)
    before = x.clone(), decay.clone()
    y = backward_recurrence(x, decay)
    following = torch.zeros_like(x[0])
    for t in reversed(range(steps)):
        following = x[t] + decay[t] * following
        assert torch.allclose(y[t], following, rtol=1e-11, atol=1e-11)
    assert torch.equal(x, before[0]) and torch.equal(decay, before[1])


@pytest.mark.parametrize("end", range(5))
def test_not_even_an_infinity_flows_back_over_an_end(end: int) -> None:
    """0 * inf is NaN; the rows up to the end are as if it were the last row."""
    x, decay = torch.ones(6), torch.full((6,), 0.5)
    x[end + 1], decay[end] = -math.inf, 0.0
    before = slice(0, end + 1)
    assert torch.equal(backward_recurrence(x, decay)[before], backward_recurrence(x[before], decay[before]))
