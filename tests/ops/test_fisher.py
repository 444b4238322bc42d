"""Tests of Fisher products against matrices from enumeration, Jacobians and sampling."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pgx.compiler import Eager
from pgx.core.agent import Policy
from pgx.core.data import Observations
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete
from pgx.networks.distributions import Categorical
from pgx.networks.mlp import MLPPolicy
from pgx.ops import fisher
from pgx.ops.fisher import (
    MatVec,
    damped,
    dense_matrix,
    empirical_fisher_product,
    fisher_vector_product,
    gauss_newton_product,
    kl_hessian_product,
    mean_over_chunks,
    scores,
)
from pgx.ops.params import gradient, split
from tests.conftest import as_observations

ACTIONS = [Discrete(3), MultiDiscrete((2, 3)), Continuous((2,))]
STATES = 5


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_policy(action: ActionSpec, hidden: list[int] | None = None) -> nn.Module:
    policy = (
        MLPPolicy(
            hidden=[4] if hidden is None else hidden,
            activation="tanh",
            hidden_gain=1.0,
            output_gain=1.0,
            log_std_init=-0.4,
            continuous="gaussian",
        )
        .make(Continuous((2,)), action, torch.Generator().manual_seed(0))
        .double()
    )
    with torch.no_grad():  # every log std its own, every bias away from 0
        for seed, parameter in enumerate(policy.parameters()):
            parameter.add_(0.3 * normal(seed + 50, *parameter.shape))
    return policy


def one_by_one(obs: Observations) -> list[Observations]:
    return [obs[row] for row in torch.arange(len(obs)).split(1)]


def size(policy: nn.Module) -> int:
    return sum(p.numel() for p in policy.parameters())


def enumerated_fisher(policy: nn.Module, obs: Observations, sizes: tuple[int, ...]) -> Tensor:
    """F = 1/B Σ_s Σ_a π(a|s) ∇log π(a|s) ∇log π(a|s)ᵀ, over every action."""
    parameters = list(policy.parameters())
    fisher = torch.zeros(size(policy), size(policy), dtype=torch.float64)
    for row in one_by_one(obs):
        for choice in itertools.product(*(range(k) for k in sizes)):
            action = torch.tensor([choice]) if len(sizes) > 1 else torch.tensor(choice)
            log_prob = policy(row).log_prob(action).sum()
            score = gradient(log_prob, parameters)
            fisher += log_prob.detach().exp() * torch.outer(score, score) / len(obs)
    return fisher


def gaussian_fisher(policy: nn.Module, obs: Observations) -> Tensor:
    """F = 1/B Σ_s Jᵀ diag(1/σ², 2) J, with J the Jacobian of (mean, log std)."""
    parameters = list(policy.parameters())
    fisher = torch.zeros(size(policy), size(policy), dtype=torch.float64)
    for row in one_by_one(obs):
        distribution = policy(row)
        outputs = [*distribution.mean[0], *distribution.log_std[0]]
        jacobian = torch.stack([gradient_of(output, parameters) for output in outputs])
        precision = torch.exp(-2 * distribution.log_std[0].detach())
        metric = torch.diag(torch.cat([precision, torch.full_like(precision, 2.0)]))
        fisher += jacobian.T @ metric @ jacobian / len(obs)
    return fisher


def gradient_of(output: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    grads = torch.autograd.grad(output, parameters, allow_unused=True, retain_graph=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, grads, strict=True)]
    )


def explicit_fisher(policy: nn.Module, obs: Observations, action: ActionSpec) -> Tensor:
    match action:
        case Discrete(n):
            return enumerated_fisher(policy, obs, (n,))
        case MultiDiscrete(sizes):
            return enumerated_fisher(policy, obs, sizes)
        case Continuous():
            return gaussian_fisher(policy, obs)


@pytest.mark.parametrize("hidden", [[], [4], [3, 3]], ids=["linear", "one layer", "two layers"])
@pytest.mark.parametrize("action", ACTIONS)
def test_the_product_is_that_with_the_explicit_matrix(action: ActionSpec, hidden: list[int]) -> None:
    policy, obs = small_policy(action, hidden), as_observations(normal(1, STATES, 2))
    fisher = explicit_fisher(policy, obs, action)
    for seed in range(3):
        v = normal(seed + 10, size(policy))
        assert torch.allclose(fisher_vector_product(policy, obs, v), fisher @ v, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("action", ACTIONS)
def test_gauss_newton_and_the_hessian_of_the_kl_are_one_matrix(action: ActionSpec) -> None:
    policy, obs = small_policy(action), as_observations(normal(1, STATES, 2))
    gauss_newton, hessian = gauss_newton_product(policy, obs), kl_hessian_product(policy, obs)
    for seed in range(3):  # the same graph serves any number of products
        v = normal(seed, size(policy))
        assert torch.allclose(gauss_newton(v), hessian(v), rtol=1e-9, atol=1e-11)
        assert torch.allclose(gauss_newton(v), fisher_vector_product(policy, obs, v), rtol=1e-12)


def test_the_product_works_for_discrete_observations() -> None:
    policy = MLPPolicy([4], "tanh", 1.0, 1.0, 0.0, "gaussian").make(
        Discrete(4), Discrete(3), torch.Generator().manual_seed(0)
    )
    obs, v = as_observations(torch.tensor([0, 3, 1, 1])), normal(0, size(policy)).float()
    actual = fisher_vector_product(policy, obs, v)
    assert actual.abs().max() > 1e-3
    assert torch.allclose(actual, kl_hessian_product(policy, obs)(v), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_kl_of_a_small_step_is_half_its_length_in_the_metric(action: ActionSpec) -> None:
    """KL(π_θ || π_{θ+εv}) = ε²/2 vᵀFv + O(ε³): the error per ε² shrinks with ε."""
    policy, obs = small_policy(action), as_observations(normal(1, STATES, 2))
    v = normal(2, size(policy)) / size(policy) ** 0.5
    expected = float(v @ fisher_vector_product(policy, obs, v)) / 2
    weights = dict(policy.named_parameters())
    old, directions = policy(obs).detach(), split(v, list(weights.values()))
    errors = []
    for epsilon in (1e-2, 1e-3):
        moved = {k: w.detach() + epsilon * d for (k, w), d in zip(weights.items(), directions, strict=True)}
        kl = float(old.kl(functional_call(policy, moved, (obs,))).mean())
        errors.append(abs(kl / epsilon**2 - expected) / expected)
    assert errors[1] < 0.01
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("action", ACTIONS)
def test_the_matrix_is_symmetric_and_positive_semidefinite(action: ActionSpec) -> None:
    policy, obs = small_policy(action), as_observations(normal(1, STATES, 2))
    product = gauss_newton_product(policy, obs)
    u, v = normal(2, size(policy)), normal(3, size(policy))
    assert float(u @ product(v)) == pytest.approx(float(v @ product(u)), rel=1e-10)
    columns = torch.stack([product(e) for e in torch.eye(size(policy), dtype=torch.float64)])
    eigenvalues = torch.linalg.eigvalsh((columns + columns.T) / 2)
    assert float(eigenvalues.min()) > -1e-10
    assert float(eigenvalues.max()) > 0.1


@pytest.mark.parametrize("action", ACTIONS)
def test_the_product_is_linear_and_averages_over_observations(action: ActionSpec) -> None:
    policy, obs = small_policy(action), as_observations(normal(1, 4, 2))
    u, v = normal(2, size(policy)), normal(3, size(policy))
    product = gauss_newton_product(policy, obs)
    assert torch.allclose(product(2 * u - 3 * v), 2 * product(u) - 3 * product(v), rtol=1e-9, atol=1e-11)
    rows = torch.stack([fisher_vector_product(policy, row, v) for row in one_by_one(obs)])
    assert torch.allclose(product(v), rows.mean(0), rtol=1e-9, atol=1e-11)


def test_the_product_leaves_no_gradients_behind() -> None:
    policy, obs = small_policy(Continuous((2,))), as_observations(normal(1, STATES, 2))
    v = fisher_vector_product(policy, obs, normal(2, size(policy)))
    assert not v.requires_grad
    assert all(p.grad is None for p in policy.parameters())


def sampled_product(policy: nn.Module, obs: Observations, v: Tensor, generator: torch.Generator) -> Tensor:
    """1/n Σ ∇log π(a|s) (∇log π(a|s) · v) with a drawn from π at each observation."""
    parameters = list(policy.parameters())
    log_prob = policy(obs).log_prob(policy(obs).detach().sample(generator))
    weight = torch.zeros_like(log_prob, requires_grad=True)
    scores = torch.autograd.grad(log_prob, parameters, weight, create_graph=True)  # Σ weight_i score_i
    (along_v,) = torch.autograd.grad(scores, weight, split(v, parameters), retain_graph=True)  # score_i · v
    return gradient((log_prob * along_v).mean(), parameters)


@pytest.mark.parametrize("action", ACTIONS)
def test_products_of_sampled_scores_converge_at_the_rate_of_a_mean(action: ActionSpec) -> None:
    """The error of n samples is c / √n: a hundred times the samples, a tenth of the error."""
    policy, obs = small_policy(action, hidden=[]), as_observations(normal(1, STATES, 2))
    v = normal(2, size(policy))
    expected = fisher_vector_product(policy, obs, v)
    generator = torch.Generator().manual_seed(3)

    def error(samples: int) -> float:
        repeats = 20
        rows = obs[torch.arange(STATES).repeat(samples // STATES)]
        errors = [sampled_product(policy, rows, v, generator) - expected for _ in range(repeats)]
        return float(torch.stack(errors).square().sum(-1).mean().sqrt() / expected.norm())

    few, many = error(100), error(10_000)
    assert many < 0.05
    assert 6 < few / many < 16


def sampled(policy: nn.Module, obs: Observations, seed: int) -> Tensor:
    action: Tensor = policy(obs).detach().sample(torch.Generator().manual_seed(seed))
    return action


@pytest.mark.parametrize("action", ACTIONS)
def test_scores_are_the_gradients_of_the_log_probability_row_by_row(action: ActionSpec) -> None:
    policy, obs = small_policy(action), as_observations(normal(1, STATES, 2))
    taken = sampled(policy, obs, 2)
    log_prob = policy(obs).log_prob(taken)
    rows = torch.stack([gradient_of(row, list(policy.parameters())) for row in log_prob])
    actual = scores(policy, obs, taken)
    assert torch.allclose(actual, rows, rtol=1e-9, atol=1e-11)
    assert not actual.requires_grad


def test_scores_work_for_discrete_observations() -> None:
    policy = MLPPolicy([4], "tanh", 1.0, 1.0, 0.0, "gaussian").make(
        Discrete(4), Discrete(3), torch.Generator().manual_seed(0)
    )
    obs, taken = as_observations(torch.tensor([0, 3, 1, 1])), torch.tensor([0, 1, 2, 2])
    actual = scores(policy, obs, taken)
    expected = gradient(policy(obs).log_prob(taken).sum(), list(policy.parameters()))
    assert torch.allclose(actual.sum(0), expected, atol=1e-6)
    assert torch.equal(actual[2], actual[3]) and not torch.equal(actual[1], actual[2])


class Clocked(nn.Module):
    """Policy pi(a|t) = softmax(theta[t])_a, which depends only on the time."""

    recurrent_state = None

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(3, 2))

    def forward(self, obs: Observations) -> Categorical:
        return Categorical(self.theta[obs.time])


def test_scores_see_the_time_of_each_row() -> None:
    time, taken = torch.tensor([2, 0, 1]), torch.tensor([1, 0, 1])
    own = scores(Clocked(), Observations(torch.zeros(3, 1), time), taken).view(3, 3, 2)
    assert (own != 0).any(-1).nonzero()[:, 1].tolist() == time.tolist()


@pytest.mark.parametrize("action", ACTIONS)
def test_the_empirical_product_is_that_with_the_mean_square_of_the_scores(action: ActionSpec) -> None:
    policy, obs = small_policy(action), as_observations(normal(1, STATES, 2))
    taken = sampled(policy, obs, 2)
    psi = scores(policy, obs, taken)
    product = empirical_fisher_product(policy, obs, taken)
    for seed in range(3):
        v = normal(seed, size(policy))
        assert torch.allclose(product(v), psi.T @ psi @ v / STATES, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_empirical_matrix_approaches_that_of_the_kl_as_one_over_the_square_root_of_the_samples(
    action: ActionSpec,
) -> None:
    policy, obs = small_policy(action), as_observations(normal(1, STATES, 2))
    v = normal(2, size(policy))
    expected = kl_hessian_product(policy, obs)(v)

    def error(samples: int) -> float:
        rows = obs[torch.arange(STATES).repeat(samples // STATES)]
        errors = [
            empirical_fisher_product(policy, rows, sampled(policy, rows, seed))(v) - expected
            for seed in range(20)
        ]
        return float(torch.stack(errors).square().sum(-1).mean().sqrt() / expected.norm())

    few, many = error(100), error(10_000)
    assert many < 0.05
    assert 6 < few / many < 16  # a hundred times the samples, a tenth of the error


@pytest.mark.parametrize("action", ACTIONS)
def test_a_product_made_dense_is_its_matrix_and_damping_is_added_to_its_diagonal(action: ActionSpec) -> None:
    policy, obs = small_policy(action), as_observations(normal(1, STATES, 2))
    product, v = gauss_newton_product(policy, obs), normal(3, size(policy))
    fisher = explicit_fisher(policy, obs, action)
    assert torch.allclose(dense_matrix(product, v), fisher, rtol=1e-9, atol=1e-11)
    assert torch.allclose(damped(product, 0.3)(v), fisher @ v + 0.3 * v, rtol=1e-9, atol=1e-11)
    assert dense_matrix(product, v).dtype == v.dtype


@pytest.mark.parametrize("product_at", [gauss_newton_product, kl_hessian_product])
def test_products_over_chunks_are_products_over_all_rows(
    product_at: Callable[[Policy, Observations], MatVec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of unequal size are weighted by their size; a single chunk gives the product itself."""
    monkeypatch.setattr(fisher, "CHUNK_ROWS", 7)
    policy, obs = small_policy(Continuous((2,))), as_observations(normal(1, 31, 2))
    vector = normal(2, size(policy))
    asked: list[int] = []

    def at(some: Observations) -> MatVec:
        asked.append(len(some))
        return product_at(policy, some)

    whole = product_at(policy, obs)(vector)
    assert torch.allclose(mean_over_chunks(at, obs, Eager())(vector), whole, rtol=1e-10, atol=1e-12)
    assert sum(asked) == len(obs) and max(asked) <= 7 and len(set(asked)) > 1
    few = obs[torch.arange(7)]
    assert torch.equal(mean_over_chunks(at, few, Eager())(vector), product_at(policy, few)(vector))
