"""Tests of TRPO against its definition: the bound, the restored step, the quadratic model."""

import math
from dataclasses import replace

import pytest
import torch

from pgx.algos.trpo import TRPO
from pgx.compiler import Eager
from pgx.core.data import Batch, Rollout
from pgx.networks.heads import GaussianPolicy
from pgx.ops.fisher import fisher_vector_product, gauss_newton_product, kl_hessian_product
from pgx.ops.losses import surrogate
from pgx.ops.params import assign, flatten, gradient
from pgx.ops.solvers import conjugate_gradient
from pgx.training.trainer import Trainer
from tests.conftest import Make, as_observations, double

ENVS = ["env=CartPole-v1", "env=Pendulum-v1"]
SMALL = ["algo=trpo", "algo.critic_minibatch_size=64", "algo.critic_epochs=2"]


def collected(trainer: Trainer) -> tuple[Rollout, Batch]:
    rollout = trainer.runner.collect(trainer.agent)
    return rollout, trainer.algorithm.estimate(trainer.agent, rollout)


def policy_vector(trainer: Trainer) -> torch.Tensor:
    return flatten(trainer.agent.policy.parameters())


@pytest.mark.parametrize("env", ENVS)
def test_mean_kl_of_every_update_is_within_the_bound_and_the_surrogate_improves(make: Make, env: str) -> None:
    trainer = make(*SMALL, env, "algo.max_kl=0.02")
    accepted = 0
    for _ in range(8):
        rollout, batch = collected(trainer)
        policy = trainer.agent.policy
        old = policy(batch.obs).detach()
        start = policy_vector(trainer)
        metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        new = policy(batch.obs)
        kl = float(old.kl(new).mean().detach())
        gain = surrogate(new.log_prob(batch.action) - batch.log_prob, batch.advantage) - surrogate(
            old.log_prob(batch.action) - batch.log_prob, batch.advantage
        )
        assert kl <= 0.02
        if metrics["line_search_fraction"] > 0:
            accepted += 1
            assert kl > 0 and float(gain.detach()) > 0
        else:
            assert torch.equal(policy_vector(trainer), start)
    assert accepted >= 6


def gain_and_kl(action: float, shift: float) -> tuple[float, float]:
    """π(a)/π_old(a) - 1 and KL(π_old || π) of π_old = N(0, 1) and π = N(0, e^shift)."""
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, math.exp(shift))
    at = torch.tensor(action)
    ratio = (new.log_prob(at) - old.log_prob(at)).exp()
    return float(ratio) - 1, float(torch.distributions.kl_divergence(old, new))


@pytest.mark.parametrize(
    ("action", "shift", "max_kl"),
    [
        pytest.param(3.0, 1.0, 0.1, id="wider, stopped by the KL"),
        pytest.param(0.0, -1.0, 0.1, id="narrower, stopped by the KL"),
        pytest.param(1.2, 1.0, 10.0, id="stopped by the surrogate"),
        pytest.param(3.0, -1.0, 10.0, id="worse at every fraction"),
    ],
)
def test_the_line_search_takes_the_first_fraction_that_improves_within_the_bound(
    action: float, shift: float, max_kl: float
) -> None:
    """The KL is KL(old || new); the reverse differs if the standard deviation changes; fractions 0.9^j are close."""
    policy = GaussianPolicy(torch.nn.Linear(1, 1), 1, log_std_init=0.0)
    with torch.no_grad():
        policy.net.weight.zero_(), policy.net.bias.zero_()
    obs, taken = as_observations(torch.zeros(4, 1)), torch.full((4, 1), action)
    old = policy(obs).detach()
    ones = torch.ones(4)
    batch = Batch(obs, taken, old.log_prob(taken), ones, ones, ones)
    rule = TRPO(0.99, 0.95, False, max_kl, "gauss_newton", 0.0, 1, 0.0, 12, 0.9, 0, 1)
    names = [name for name, _ in policy.named_parameters()]
    full_step = shift * torch.tensor([float(name == "log_std") for name in names])
    search = rule._line_search(policy, batch, old, Eager(), 1.0, full_step)
    good = [
        j for j in range(13) if (found := gain_and_kl(action, shift * 0.9**j))[0] > 0 and found[1] <= max_kl
    ]
    expected = 0.9 ** good[0] if good else 0.0
    assert search.fraction == pytest.approx(expected)
    assert float(policy.log_std.detach()) == pytest.approx(expected * shift)


@pytest.mark.parametrize("env", ENVS)
def test_a_rejected_search_restores_every_bit(make: Make, env: str) -> None:
    # Without regard to KL the full step is far beyond what one halving can bring back under the bound.
    trainer = make(*SMALL, env, "algo.line_search_steps=1", "algo.line_search_shrink=0.5")
    rollout, _ = collected(trainer)
    start = policy_vector(trainer)
    # The quadratic model is scaled to max_kl; a rule that measures KL against a smaller bound must reject.
    trainer.algorithm.max_kl = 1e-3
    real = trainer.algorithm._line_search
    trainer.algorithm._line_search = lambda policy, batch, old, engine, objective, step: real(
        policy, batch, old, engine, objective, 50 * step
    )
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert metrics["line_search_fraction"] == 0
    assert metrics["line_search_steps"] == 2  # the full step and one backtrack
    assert metrics["zero_gradient"] == metrics["no_curvature"] == 0
    assert torch.equal(policy_vector(trainer), start)


def test_without_advantage_there_is_no_step_and_no_nan(make: Make) -> None:
    trainer = make(*SMALL, "env=CartPole-v1", "algo.normalize_advantage=false")
    rollout, batch = collected(trainer)
    flat = replace(batch, advantage=torch.zeros(len(batch)))
    trainer.algorithm.estimate = lambda agent, rollout: flat
    start = policy_vector(trainer)
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert torch.equal(policy_vector(trainer), start)
    assert metrics["line_search_steps"] == 0 and metrics["cg_steps"] == 0
    assert metrics["zero_gradient"] == 1 and metrics["no_curvature"] == 0
    assert math.isnan(metrics.pop("line_search_fraction"))  # undefined without a search, so it is not logged
    assert all(value == value for value in metrics.values())


@pytest.mark.parametrize("curvature", [0.0, -1.0])
def test_without_curvature_there_is_no_step_and_the_reason_is_logged(
    make: Make, monkeypatch: pytest.MonkeyPatch, curvature: float
) -> None:
    trainer = make(*SMALL, "env=CartPole-v1", "algo.damping=0")
    rollout, _ = collected(trainer)
    monkeypatch.setattr(type(trainer.algorithm), "_product", lambda *_: lambda v: curvature * v)
    start = policy_vector(trainer)
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert torch.equal(policy_vector(trainer), start)
    assert metrics["no_curvature"] == 1 and metrics["zero_gradient"] == 0
    assert metrics["line_search_steps"] == 0


@pytest.mark.parametrize("env", ENVS)
def test_the_step_is_the_damped_natural_gradient_scaled_to_the_bound(make: Make, env: str) -> None:
    trainer = make(*SMALL, env, "algo.cg_steps=200", "algo.cg_tolerance=1e-6", "policy.hidden=[3]")
    trainer.algorithm.max_kl = 1e-6  # so small that the full step is accepted
    rollout, batch = collected(trainer)
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    objective = surrogate(policy(batch.obs).log_prob(batch.action) - batch.log_prob, batch.advantage)
    g = gradient(objective, parameters)
    product = gauss_newton_product(policy, batch.obs)
    fisher = torch.stack([product(e) for e in torch.eye(len(g))]) + trainer.algorithm.damping * torch.eye(
        len(g)
    )
    natural = torch.linalg.solve(fisher, g)
    expected = (2e-6 / natural.dot(g)).sqrt() * natural
    start = policy_vector(trainer)
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert metrics["line_search_fraction"] == 1
    step = policy_vector(trainer) - start
    assert float((step - expected).norm() / expected.norm()) < 1e-2


def test_a_kl_that_is_averaged_over_action_dimensions_converts_with_their_number(make: Make) -> None:
    """docs/algorithms/trpo.md: a bound and a damping for KL / A, both times A, give the same step."""
    bound, damping, actions = 1e-6, 0.1, 6
    env = ["env=Walker2d-v4", "env.backend=gymnasium", "policy.hidden=[3]"]
    here = [f"algo.max_kl={actions * bound}", f"algo.damping={actions * damping}"]
    trainer = make(*SMALL, *env, *here, "algo.cg_steps=200", "algo.cg_tolerance=1e-7")
    rollout, batch = collected(trainer)
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    now = policy(batch.obs)
    g = gradient(surrogate(now.log_prob(batch.action) - batch.log_prob, batch.advantage), parameters)
    now = policy(batch.obs)  # the gradient freed the first graph
    averaged = torch.distributions.kl_divergence(
        torch.distributions.Normal(now.mean.detach(), now.log_std.detach().exp()),
        torch.distributions.Normal(now.mean, now.log_std.exp()),
    ).mean()  # over rows and over dimensions
    slope = torch.cat([x.flatten() for x in torch.autograd.grad(averaged, parameters, create_graph=True)])
    hessian = torch.stack(
        [
            torch.cat([x.flatten() for x in torch.autograd.grad(one, parameters, retain_graph=True)])
            for one in slope
        ]
    )
    x = torch.linalg.solve(hessian + damping * torch.eye(len(g)), g)
    expected = (2 * bound / x.dot(g)).sqrt() * x
    start = policy_vector(trainer)
    assert trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)["line_search_fraction"] == 1
    step = policy_vector(trainer) - start
    assert float((step - expected).norm() / expected.norm()) < 1e-2


@pytest.mark.parametrize("env", ENVS)
def test_both_fisher_products_give_the_same_update(make: Make, env: str) -> None:
    ends = []
    for fisher in ("gauss_newton", "kl_hessian"):
        trainer = make(*SMALL, env, f"algo.fisher={fisher}")
        rollout, _ = collected(trainer)
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        ends.append(policy_vector(trainer))
    assert float((ends[0] - ends[1]).norm() / ends[0].norm()) < 1e-3


@pytest.mark.parametrize("env", ENVS)
def test_the_quadratic_model_of_kl_is_wrong_by_third_order_alone(make: Make, env: str) -> None:
    """KL(θ, θ + t x) = t²/2 xᵀFx + O(t³): a quarter of the bound is half the step and an eighth of the error."""
    trainer = make(*SMALL, env, "policy.output_gain=1.0")
    _, batch = collected(trainer)
    policy = trainer.agent.policy.double()
    obs, parameters = double(batch.obs), list(policy.parameters())
    start, old = flatten(parameters), policy(obs).detach()
    g = gradient((policy(obs).log_prob(batch.action) * batch.advantage).mean(), parameters)
    product = kl_hessian_product(policy, obs)
    direction = conjugate_gradient(lambda v: product(v) + 0.1 * v, g, 20, 1e-12).x
    curvature = float(direction.dot(fisher_vector_product(policy, obs, direction)))
    errors = []
    for max_kl in (1.6e-3, 4e-4, 1e-4):
        assign(parameters, start + (2 * max_kl / curvature) ** 0.5 * direction)
        errors.append(abs(float(old.kl(policy(obs)).mean().detach()) - max_kl))
    assert errors[0] / errors[1] > 7 and errors[1] / errors[2] > 7
    assert errors[0] < 0.2 * 1.6e-3  # and the model is good to begin with, so its leading term is right


def test_gradient_of_the_surrogate_at_the_old_policy_is_reinforce(make: Make) -> None:
    trainer = make(*SMALL, "env=Pendulum-v1")
    _, batch = collected(trainer)
    policy = trainer.agent.policy
    parameters = list(policy.parameters())
    old = policy(batch.obs).log_prob(batch.action).detach()
    of_surrogate = gradient(
        surrogate(policy(batch.obs).log_prob(batch.action) - old, batch.advantage), parameters
    )
    reinforce = gradient((policy(batch.obs).log_prob(batch.action) * batch.advantage).mean(), parameters)
    assert torch.allclose(of_surrogate, reinforce, rtol=1e-5, atol=1e-7)


def test_the_critic_gets_closer_to_its_targets(make: Make) -> None:
    trainer = make(*SMALL, "env=CartPole-v1", "algo.critic_epochs=20")
    rollout, batch = collected(trainer)
    before = float((batch.value - batch.value_target).square().mean())
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    after = float((trainer.agent.critic(batch.obs) - batch.value_target).square().mean().detach())
    assert after < before
